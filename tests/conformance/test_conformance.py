"""Every check can fail: for each promise a method that breaks it, and how that is said."""

from __future__ import annotations

import pytest

from bench import registry
from bench.conformance import CHECKS, check_method, methods_of_file, suite
from bench.errors import BenchError

PLUGIN = '''
import numpy as np
import torch
from pydantic import Field

from bench import Method, MethodConfig, register
from bench.conformance.method_fixture import setting
from bench.contracts.method import tunable

HERE = "UDA"


class Tuned(MethodConfig):
    """``rate``: of SGD; ``epochs``: passes."""

    rate: float = tunable(1e-2, 1e-4, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = Field(2, ge=1, le=9)


class Base(Method):
    Config = Tuned
    paper = "none: a test"
    equation = "min H"

    def prepare(self, model, source):
        self.model = model
        self.optimizer = torch.optim.SGD(model.module.parameters(), lr=self.config.rate)

    def loss(self, batch):
        return -self.model(batch.x).logsumexp(1).mean()

    def step(self, batch):
        loss = self.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss

    def adapt(self, domain, window):
        for batch in window.steps(domain.batches(self.config.epochs)):
            self.step(batch)


@register("method", "good")
class Good(Base):
    """Breaks no promise."""


# declared -----------------------------------------------------------------------------------


@register("method", "says-nothing")
class SaysNothing(Base):
    pass


@register("method", "cites-nothing")
class CitesNothing(Base):
    """Has no source."""

    paper = "somebody, some day"


@register("method", "has-no-equation")
class HasNoEquation(Base):
    """Does not say what it minimises."""

    equation = ""


@register("method", "computes-its-family")
class ComputesItsFamily(Base):
    """The listing cannot read it."""

    family = HERE.replace("UDA", "CL")


@register("method", "wants-it-timed")
class WantsItTimed(Base):
    """Whether a stream waits is no method's business."""

    protocols = ("online", "online-timed")


@register("method", "needs-luck")
class NeedsLuck(Base):
    """A need that nobody knows."""

    needs = ("luck",)


# settings -----------------------------------------------------------------------------------


class Unbounded(MethodConfig):
    """``weight``: of the loss."""

    weight: float = Field(1.0, ge=0)


@register("method", "unbounded")
class HasUnbounded(Base):
    """A setting without an upper bound."""

    Config = Unbounded


class Unexplained(Tuned):
    """Of what it does nothing is said here."""

    mystery: int = Field(1, ge=0, le=2)


@register("method", "unexplained")
class HasUnexplained(Base):
    """A setting that the docstring leaves out."""

    Config = Unexplained


class Impossible(MethodConfig):
    """``rate``: above its bound."""

    rate: float = Field(2.0, ge=0, le=1)


@register("method", "impossible")
class HasImpossible(Base):
    """A default that is not allowed."""

    Config = Impossible


class Searched(MethodConfig):
    """``rate``: searched where it is not allowed."""

    rate: float = tunable(1e-2, 1e-4, 10.0, log=True, ge=1e-8, le=1.0)


@register("method", "searched-outside")
class HasSearched(Base):
    """A search beyond the bounds."""

    Config = Searched


# skip ---------------------------------------------------------------------------------------


@register("method", "skips-silently")
class SkipsSilently(Base):
    """Gives an empty reason."""

    @classmethod
    def skip(cls, cell):
        return "" if cell.stream.name == "digits-shift" else None


# labels -------------------------------------------------------------------------------------


@register("method", "peeks")
class Peeks(Base):
    """Asks for labels that it did not declare."""

    def loss(self, batch):
        return self.model.loss(self.model(batch.x), batch.y)


@register("method", "peeks-quietly")
class PeeksQuietly(Base):
    """Takes labels where there are some."""

    def loss(self, batch):
        y = getattr(batch, "y", None)
        return super().loss(batch) if y is None else self.model.loss(self.model(batch.x), y)


@register("method", "peeks-at-the-view")
class PeeksAtTheView(Base):
    """Asks the domain."""

    def adapt(self, domain, window):
        domain.y


@register("method", "declares-labels")
class DeclaresLabels(Base):
    """Declares labels that it does not read."""

    needs = ("target_labels",)


@register("method", "holds-the-answers")
class HoldsTheAnswers(Base):
    """Has found the labels elsewhere."""

    def adapt(self, domain, window):
        self.answers = setting().domains[0].adaptation.y[:10]


@register("method", "reads-the-source")
class ReadsTheSource(Base):
    """Reads source data that it did not declare."""

    def prepare(self, model, source):
        super().prepare(model, source)
        self.source = source

    def loss(self, batch):
        return self.model.loss(self.model(self.source.x), self.source.y)


# same-seed ----------------------------------------------------------------------------------


@register("method", "draws-unseeded")
class DrawsUnseeded(Base):
    """Draws from a numpy generator that nobody seeded."""

    def loss(self, batch):
        return super().loss(batch) * np.random.default_rng().random()


# state --------------------------------------------------------------------------------------


@register("method", "forgets")
class Forgets(Base):
    """Its state leaves out what it counts."""

    def prepare(self, model, source):
        super().prepare(model, source)
        self.seen = 0

    def loss(self, batch):
        self.seen += 1
        return super().loss(batch) / self.seen

    def state(self):
        return {name: kept for name, kept in super().state().items() if name != "seen"}


@register("method", "keeps-an-object")
class KeepsAnObject(Base):
    """Holds what the default state cannot save."""

    def prepare(self, model, source):
        super().prepare(model, source)
        self.generator = np.random.default_rng(0)


@register("method", "saves-code")
class SavesCode(Base):
    """Its state is not plain."""

    def state(self):
        return {"config": self.config}


# batches ------------------------------------------------------------------------------------


@register("method", "needs-two")
class NeedsTwo(Base):
    """The spread of a single sample is not a number."""

    def loss(self, batch):
        return self.model(batch.x).std(dim=0).mean()


@register("method", "squeezes")
class Squeezes(Base):
    """Loses the dimension of the sample when there is one."""

    def predict(self, x):
        return self.model(x).squeeze()


@register("method", "needs-two-classes")
class NeedsTwoClasses(Base):
    """Divides by the number of classes but one."""

    needs = ("target_labels",)

    def loss(self, batch):
        loss = self.model.loss(self.model(batch.x), batch.y)
        return loss / (batch.y != batch.y[0]).sum()


@register("method", "knows-float32")
class KnowsFloat32(Base):
    """Makes tensors of its own type."""

    def loss(self, batch):
        return (self.model(batch.x) @ torch.ones(10, 1)).mean()


@register("method", "repeats")
class Repeats(Base):
    """Loops over epochs without asking for the passes."""

    def adapt(self, domain, window):
        for _ in range(self.config.epochs):
            for batch in window.steps(domain.batches()):
                self.step(batch)


# predict ------------------------------------------------------------------------------------


@register("method", "learns-while-predicting")
class LearnsWhilePredicting(Base):
    """Moves a weight with every prediction."""

    def predict(self, x):
        self.model.head.bias.data += 0.01
        return self.model(x)


@register("method", "gives-class-numbers")
class GivesClassNumbers(Base):
    """Decides for itself."""

    def predict(self, x):
        return super().predict(x).argmax(1)


@register("method", "divides-by-zero")
class DividesByZero(Base):
    """Divides by what it has learned, which is nothing."""

    def predict(self, x):
        return super().predict(x) / torch.zeros(1)


SEEN = {}


@register("method", "remembers-in-a-global")
class RemembersInAGlobal(Base):
    """Counts samples in a global while it predicts."""

    def predict(self, x):
        SEEN["n"] = SEEN.get("n", 0) + len(x)
        return super().predict(x)


@register("method", "predicts-by-a-lambda")
class PredictsByALambda(Base):
    """Keeps the model in a closure."""

    def prepare(self, model, source):
        super().prepare(model, source)
        self.forward = lambda x: model(x)

    def predict(self, x):
        return self.forward(x)


@register("method", "counts-predictions")
class CountsPredictions(Base):
    """Counts in a plain attribute."""

    def predict(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return self.model(x)


@register("method", "predicts-at-random")
class PredictsAtRandom(Base):
    """Draws from the global generator."""

    def predict(self, x):
        logits = self.model(x)
        return logits + torch.rand(()) * 0.0


# window -------------------------------------------------------------------------------------


@register("method", "trains-for-free")
class TrainsForFree(Base):
    """Does not ask the window."""

    def adapt(self, domain, window):
        for batch in domain.batches():
            self.step(batch)


@register("method", "trains-by-data")
class TrainsByData(Base):
    """Changes weights behind the version counter."""

    def adapt(self, domain, window):
        super().adapt(domain, window)
        self.model.head.bias.data += 0.01


@register("method", "computes-for-free")
class ComputesForFree(Base):
    """Predicts the whole domain before the first step."""

    def adapt(self, domain, window):
        with torch.no_grad():
            self.model(domain.x)
        super().adapt(domain, window)


@register("method", "never-ends")
class NeverEnds(Base):
    """Goes on asking when the window has closed."""

    def adapt(self, domain, window):
        while True:
            super().adapt(domain, window)


@register("method", "works-in-sections")
class WorksInSections(Base):
    """Calls its steps sections, which are never refused."""

    def adapt(self, domain, window):
        for batch in domain.batches():
            with window.section("batch"):
                self.step(batch)


# memory -------------------------------------------------------------------------------------


class Keeps(Base):
    def prepare(self, model, source):
        super().prepare(model, source)
        self.kept = []


@register("method", "keeps-batches")
class KeepsBatches(Keeps):
    """Replays without saying so."""

    def loss(self, batch):
        self.kept.append(batch.x[0].clone())
        return super().loss(batch)


@register("method", "keeps-numbers")
class KeepsNumbers(Keeps):
    """Grows a list of plain numbers."""

    def loss(self, batch):
        self.kept.append(0.5)
        return super().loss(batch)


@register("method", "keeps-the-graph")
class KeepsTheGraph(Keeps):
    """Adds up losses with all that led to them."""

    needs = ("replay_memory",)

    def loss(self, batch):
        loss = super().loss(batch)
        self.total = getattr(self, "total", 0.0) + loss
        return loss

    def state(self):
        return {}


@register("method", "hides-its-memory")
class HidesItsMemory(Keeps):
    """Declares replay memory and leaves it off the device."""

    needs = ("replay_memory",)

    def loss(self, batch):
        self.kept.append(batch.x[:1].clone())
        return super().loss(batch)

    def stored(self):
        return [self.model, self.optimizer]


@register("method", "keeps-what-it-declares")
class KeepsWhatItDeclares(Keeps):
    """Grows, and says so."""

    needs = ("replay_memory",)

    def loss(self, batch):
        self.kept.append(batch.x[:1].clone())
        return super().loss(batch)


# not to be checked --------------------------------------------------------------------------


@register("method", "needs-a-module")
class NeedsAModule(Base):
    """A library that is not there."""

    preload = ("bench_has_no_such_module",)


@register("method", "detects")
class Detects(Base):
    """Another task."""

    tasks = ("detection",)


@register("method", "crashes")
class Crashes(Base):
    """Raises."""

    def loss(self, batch):
        return {}["nothing"]
'''


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin") / "bad_methods.py"
    path.write_text(PLUGIN)
    with registry.isolated():
        registry.add_plugin(path)
        yield path


def the_result(method, check):
    (result,) = check_method(method, [check])
    return result


def test_a_sound_method_passes_every_check():
    results = list(check_method("good"))
    assert [result.line for result in results if not result.passed] == []
    assert [result.name for result in results] == list(CHECKS["method"])
    assert all(result.line.startswith(f"ok   {result.name}: ") for result in results)


@pytest.mark.parametrize(
    ("method", "check", "parts"),
    [
        ("says-nothing", "declared", ["no docstring"]),
        ("cites-nothing", "declared", ["'somebody, some day'", "year"]),
        ("has-no-equation", "declared", ["equation is ''"]),
        ("computes-its-family", "declared", ["'CL'", "'UDA'", "literal"]),
        ("needs-luck", "declared", ["'luck'", "'source_data'"]),
        ("wants-it-timed", "declared", ["'online-timed'", "'periodic' or 'online'"]),
        ("unbounded", "settings", ["'weight'", "no upper bound"]),
        ("unexplained", "settings", ["'mystery'", "docstring of Unexplained"]),
        ("impossible", "settings", ["'rate'", "not allowed"]),
        ("searched-outside", "settings", ["'rate'", "from 0.0001 to 10.0"]),
        ("skips-silently", "skip", ["skip gave ''", "digits-shift", "in words"]),
        ("peeks", "labels", ["asks for target labels", "'target_labels'"]),
        ("peeks-quietly", "labels", ["asks for target labels"]),
        ("peeks-at-the-view", "labels", ["asks for target labels (y) 2 times"]),
        ("declares-labels", "labels", ["reads none"]),
        ("holds-the-answers", "labels", ["holds the tensor of a domain's labels"]),
        ("reads-the-source", "labels", ["needs = ('source_data',)"]),
        ("draws-unseeded", "same-seed", ["differs between two runs", "Generator"]),
        ("forgets", "state", ["differs after load_state"]),
        ("keeps-an-object", "state", ["'generator'", "override state()"]),
        ("saves-code", "state", ["weights_only"]),
        ("needs-two", "batch-sizes", ["not finite", "batches of 1"]),
        ("squeezes", "batch-sizes", ["shape (10,) for 1 samples"]),
        ("needs-two-classes", "one-class", ["not finite after a domain of one class"]),
        ("knows-float32", "bfloat16", ["RuntimeError", "dtype", "bad_methods.py:"]),
        ("repeats", "online", ["'adapt' steps take a sample 2 times", "domain.max_passes"]),
        ("learns-while-predicting", "predict", ["predict changes model.head.bias"]),
        ("gives-class-numbers", "outputs", ["shape (40,), not (40, 10)", "logits"]),
        ("divides-by-zero", "outputs", ["400 of 400 outputs that are not finite"]),
        ("remembers-in-a-global", "reads-only", ["'SEEN' of module", "change it in adapt"]),
        ("predicts-by-a-lambda", "copies", ["attribute 'forward' holds a function", "self"]),
        ("remembers-in-a-global", "copies", ["'SEEN' of module", "keep it in self"]),
        ("counts-predictions", "predict", ["predict changes calls"]),
        ("predicts-at-random", "predict", ["draws random numbers"]),
        ("trains-for-free", "window", ["outside a step"]),
        ("trains-by-data", "window", ["weights changed outside a step"]),
        ("computes-for-free", "window", ["computes outside the steps"]),
        ("works-in-sections", "window", ["5 sections"]),
        ("keeps-batches", "memory", ["bytes more", "'replay_memory'"]),
        ("keeps-numbers", "memory", ["state() holds 45 values more"]),
        ("keeps-the-graph", "memory", ["keeps the graph", "detach"]),
        ("hides-its-memory", "memory", ["stored() shows 0"]),
        ("crashes", "same-seed", ["raised KeyError: 'nothing' (bad_methods.py:"]),
    ],
)
def test_a_broken_promise_is_found_and_explained(method, check, parts):
    result = the_result(method, check)
    assert not result.passed
    assert result.line.startswith(f"FAIL {check}: ")
    for part in parts:
        assert part in result.why
    assert "\n" not in result.why


def test_every_check_has_a_method_that_breaks_it():
    marks = test_a_broken_promise_is_found_and_explained.pytestmark
    assert {check for _, check, _ in marks[0].args[1]} == set(CHECKS["method"])


def test_declared_replay_memory_may_grow():
    assert the_result("keeps-what-it-declares", "memory").passed


def test_a_method_that_does_not_return_is_given_up(monkeypatch):
    monkeypatch.setattr(suite, "LIMIT_S", 2)
    result = the_result("never-ends", "window")
    assert result.why.startswith("did not end within 2 s")


def test_nothing_is_left_behind_in_torch():
    import torch

    def state() -> list[object]:
        strict = torch.are_deterministic_algorithms_enabled()
        return [torch.get_num_threads(), torch.get_rng_state().tolist(), strict]

    before = state()
    the_result("good", "same-seed")
    assert state() == before


@pytest.mark.parametrize(
    ("method", "only", "part"),
    [
        ("needs-a-module", [], "needs module bench_has_no_such_module"),
        ("detects", [], "does detection"),
        ("goood", [], "did you mean 'good'"),
        ("good", ["labls"], "did you mean 'labels'"),
    ],
)
def test_what_cannot_be_checked_is_an_error(method, only, part):
    with pytest.raises(BenchError, match=part):
        list(check_method(method, only))


def test_a_files_methods_are_those_that_it_registers(tmp_path, plugin):
    import bench.methods.tent

    assert "good" in methods_of_file(plugin)
    assert methods_of_file(bench.methods.tent.__file__) == ["tent"]
    model = tmp_path / "model.py"
    model.write_text('from bench import register\n@register("model", "m")\nclass M: pass\n')
    with pytest.raises(BenchError, match="registers no method"):
        methods_of_file(model)
    with pytest.raises(BenchError, match="no such file"):
        methods_of_file(tmp_path / "missing.py")


# The command ---------------------------------------------------------------------------------


def command(*arguments):
    from typer.testing import CliRunner

    from bench.cli import app

    return CliRunner().invoke(app, ["check", *arguments])


def test_the_command_prints_a_line_a_check_and_exits_with_1_if_one_failed():
    done = command("good", "peeks", "--only", "labels", "--only", "skip")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "method good"
    assert lines[1] == "ok   labels: adapted on 2 unlabelled domains"
    assert lines[2].startswith("ok   skip: asked for ")
    assert lines[3].startswith("good: 2 checks passed in ")
    assert lines[5].startswith("FAIL labels: asks for target labels")
    assert lines[7].startswith("peeks: 1 of 2 checks failed in ")


def test_the_command_exits_with_0_if_all_is_well():
    assert command("good", "--only", "skip").exit_code == 0


def test_the_command_lists_the_checks_with_their_promises():
    lines = command("--list").stdout.splitlines()
    wanted = [[kind, name] for kind, checks in CHECKS.items() for name in checks]
    assert [line.split()[:2] for line in lines] == wanted
    assert lines[0].endswith("what it was taken from.")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "give --all"),
        (("tnet",), "did you mean 'tent'"),
        (("missing.py",), "no such file"),
        (("good", "--only", "x"), "unknown check 'x'"),
    ],
)
def test_bad_input_is_an_error_of_one_line(arguments, part):
    done = command(*arguments)
    assert isinstance(done.exception, BenchError)  # main() prints it and exits with 2
    assert part in str(done.exception)
