"""Fair tuning: equal budgets, the defaults first, failures counted, the same on resume."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import registry
from bench.cli.tune import command, tuned_file
from bench.contracts.method import (
    MethodConfig,
    Searched,
    SearchedChoice,
    choice,
    search_space,
    tunable,
)
from bench.errors import BenchError
from bench.execute.base import Ended
from bench.records.cell import Cell
from bench.records.record import Record, Results
from bench.records.store import Store
from bench.study.job import Job
from bench.study.plan import make_cells
from bench.study.suite import Suite, load_suite
from bench.study.tuned_settings import merged, write_tuned
from bench.tuning.tune import (
    DIGITS,
    Tried,
    Tuner,
    default_out,
    distribution,
    rounded,
    validation_runs,
    validation_suite,
)

PLUGIN = '''
from typing import Literal

from bench import Method, MethodConfig, choice, register
from bench.contracts.method import tunable
from bench.contracts.stream import Stream, StreamConfig
from bench.testing import TinyModel, TinyStream
from pydantic import Field

class ToyConfig(StreamConfig):
    part: str = "test"
    shifts: tuple[str, ...] = ("noise",)

@register("stream", "toy-shift")
class ToyShift(TinyStream):
    """A stream with a validation stream."""
    Config = ToyConfig

    @classmethod
    def data_digest(cls, config):
        return "da7a"

    @classmethod
    def validation(cls, config):
        return config.model_copy(update={"part": "validation", "shifts": ("blur",)})

@register("stream", "toy-without")
class ToyWithout(ToyShift):
    """A stream without one."""
    @classmethod
    def validation(cls, config):
        return Stream.validation.__func__(cls, config)

@register("model", "toy-net")
class ToyNet(TinyModel):
    """Never built."""

class TwoConfig(MethodConfig):
    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 5, ge=1, le=100)
    fixed: int = Field(7, ge=0)

@register("method", "two")
class Two(Method):
    """A logarithmic rate and a whole number."""
    Config = TwoConfig

@register("method", "twin")
class Twin(Method):
    """The same settings under another name."""
    Config = TwoConfig

class OneConfig(MethodConfig):
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "one")
class One(Method):
    """One number."""
    Config = OneConfig

class NamedConfig(MethodConfig):
    optimizer: Literal["sgd", "adam", "adamw"] = choice("sgd", "adamw")
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "named")
class Named(Method):
    """A name, and a number."""
    Config = NamedConfig

class WholeConfig(MethodConfig):
    steps: int = tunable(2, 1, 3)

@register("method", "whole")
class Whole(Method):
    """Three possibilities in all."""
    Config = WholeConfig

class OutsideConfig(MethodConfig):
    weight: float = tunable(9.0, 0.0, 1.0, le=10.0)

@register("method", "outside")
class Outside(Method):
    """Its default lies outside of the search."""
    Config = OutsideConfig

@register("method", "from-full")
class FromFull(Method):
    """Makes its own small model."""
    Config = OneConfig
    makes_own_model = True

class MoreConfig(TwoConfig):
    epochs: int = tunable(2, 1, 5)
    weight: float = tunable(0.5, 0.0, 1.0)

@register("method", "more")
class More(Method):
    """The other one with a penalty more."""
    Config = MoreConfig
    search_from = "two"

@register("method", "nothing")
class Nothing(Method):
    """Has nothing to search."""

@register("method", "labels")
class Labels(Method):
    """Needs labels."""
    Config = OneConfig
    needs = ("target_labels",)
'''

SUITE = """
name: mine
description: a suite for tests
stream: toy-shift
model: toy-net
methods: [two, one]
seeds: 2
devices: [xavier-nx, agx-orin]
"""

OLD = Path(__file__).parents[1] / "records" / "samples" / "schema-1.json"
RESULTS = Results.model_validate(json.loads(OLD.read_text())["results"])


@pytest.fixture
def plugin(tmp_path: Path, empty_registry: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "toys.py"
    path.write_text(PLUGIN)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the folder's files are compared
    registry.add_plugin(path)
    return path


def quality(config: dict[str, Any]) -> float:
    """A score in [0, 1], best at a rate of 0.01, 4 epochs and a weight of 0.25."""
    score = 1.0
    if "learning_rate" in config:
        score -= (math.log10(config["learning_rate"]) + 2) ** 2 / 100
    if "epochs" in config:
        score -= (config["epochs"] - 4) ** 2 / 100
    if "weight" in config:
        score -= (config["weight"] - 0.25) ** 2 / 100
    return score


Outcome = Callable[[Cell], float | str]
"""The score that a trial gets, or the status with which it fails."""


class Bench:
    """A suite, a store and an executor that makes records up."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.store = Store(folder / "store")
        self.told: list[Tried] = []
        self.ran: list[Cell] = []

    def suite(self, text: str = SUITE) -> tuple[Suite, list[Cell]]:
        path = self.folder / "mine.yaml"
        path.write_text(text)
        loaded, _ = load_suite(str(path))
        one = loaded.model_copy(update={"devices": loaded.devices[:1]})
        return one, make_cells(one, path)

    def tuner(self, text: str = SUITE, trials: int = 6) -> Tuner:
        suite, cells = self.suite(text)
        return Tuner(suite, cells, trials, self.store, self.told.append)

    def record(self, job: Job, outcome: float | str) -> Record:
        (cell,) = job.cells
        failed = isinstance(outcome, str)
        results = None
        if not isinstance(outcome, str):
            scores = {"after": outcome, "final": outcome}
            domains = [d.model_copy(update=scores) for d in RESULTS.domains]
            results = RESULTS.model_copy(update={"domains": domains})
        old = json.loads(OLD.read_text())
        return Record.model_validate(
            {
                **old, "identity": cell.identity, "cell": cell, "run": job.run,
                "suite": job.suite, "status": outcome if failed else "ok",
                "attempt": job.attempts[0] + 1, "results": results,
            }
        )  # fmt: skip

    def run(
        self,
        tuner: Tuner,
        outcome: Outcome = lambda cell: quality(cell.method.config),
        most: int = 10_000,
        last: bool = False,
    ) -> int:
        """Run what the tuner asks for, the oldest job first or the last; how many were run."""
        jobs = tuner.begin()
        done = 0
        while jobs and done < most:
            job = jobs.pop(-1 if last else 0)
            record = self.record(job, outcome(job.cells[0]))
            self.store.write(record)
            self.ran += job.cells
            jobs += tuner.ended(Ended(job, [record], []))
            done += 1
        return done

    def tried(self, name: str) -> list[dict[str, Any]]:
        return [tried.settings for tried in self.told if tried.method == name]


@pytest.fixture
def bench(tmp_path: Path, plugin: Path) -> Bench:
    return Bench(tmp_path)


def fresh(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("other"))


# --- the budget -------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 2, 7])
def test_every_method_gets_as_many_trials_and_its_defaults_first(bench: Bench, trials: int) -> None:
    tuner = bench.tuner(trials=trials)
    assert tuner.names == ["two", "one"]
    assert bench.run(tuner) == sum(tried.runs for tried in bench.told)
    for name in tuner.names:
        mine = [tried for tried in bench.told if tried.method == name]
        assert [tried.trial for tried in mine] == list(range(1, trials + 1))
        first, *others = bench.tried(name)
        assert first == {}
        assert all(others)
        assert len({json.dumps(o) for o in others}) == len(others)
        assert mine[0].runs == 2
        assert {tried.runs for tried in mine} <= {1, 2}
    assert {tried.trials for tried in bench.told} == {trials}
    defaults = {c.method.name: c.method.config for c in bench.ran[:4]}
    assert defaults == {
        "two": {"learning_rate": 0.001, "epochs": 1, "fixed": 7}, "one": {"weight": 0.5},
    }  # fmt: skip
    assert {n: t.trials for n, t in tuner.results().items()} == {"two": trials, "one": trials}


def test_a_search_with_few_possibilities_spends_its_trials_all_the_same(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "whole"), trials=8)
    ran = bench.run(tuner)
    assert [tried.trial for tried in bench.told] == list(range(1, 9))
    assert ran == len({c.identity for c in bench.ran}) <= 2 * 3  # nothing is run twice
    assert tuner.results()["whole"].trials == 8


def test_jobs_say_where_to_write_and_which_plugins_to_load(bench: Bench, plugin: Path) -> None:
    jobs = bench.tuner().begin()
    assert [len(job.cells) for job in jobs] == [1] * 4
    assert len({job.run for job in jobs}) == 4
    for job in jobs:
        assert (job.suite, job.store) == ("mine", str(bench.store.root))
        assert (job.attempts, job.plugins) == ((0,), (str(plugin),))
        assert job.cells[0].device == "xavier-nx"


# --- what is found ----------------------------------------------------------------------


def test_the_best_trial_is_found_with_its_score(bench: Bench) -> None:
    tuner = bench.tuner(trials=12)
    bench.run(tuner)
    for name, found in tuner.results().items():
        scores = [(t.score, t.settings) for t in bench.told if t.method == name and t.runs == 2]
        best = max(score for score, _ in scores)
        assert found.score == pytest.approx(best, abs=1e-6)
        assert found.score > found.default_score == pytest.approx(scores[0][0], abs=1e-6)
        assert (found.settings, found.failed) == (dict(scores)[best], 0)
        cell = next(c for c in bench.ran if c.method.name == name)
        assert found.code == cell.method.code


def test_equal_scores_keep_the_defaults(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: 0.5)
    for found in tuner.results().values():
        assert (found.settings, found.score, found.default_score) == ({}, 0.5, 0.5)


def test_a_score_of_zero_is_a_score(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: 0.0)
    for found in tuner.results().values():
        assert (found.settings, found.score, found.default_score, found.failed) == ({}, 0, 0, 0)


def test_defaults_outside_of_the_search_are_tried_and_can_win(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "outside"))
    bench.run(tuner, lambda cell: 0.9 if cell.method.config["weight"] > 1 else 0.1)
    found = tuner.results()["outside"]
    assert (found.settings, found.default_score, found.trials) == ({}, 0.9, 6)
    assert all(0 <= s["weight"] <= 1 for s in bench.tried("outside")[1:])


def test_names_are_chosen_among_those_that_are_searched(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "named"), trials=16)
    bench.run(tuner, lambda cell: 0.9 if cell.method.config["optimizer"] == "adamw" else 0.1)
    tried = [settings["optimizer"] for settings in bench.tried("named")[1:]]
    assert set(tried) == {"sgd", "adamw"}
    assert tried.count("adamw") > tried.count("sgd")  # the sampler learns which is better
    assert tuner.results()["named"].settings["optimizer"] == "adamw"


def test_a_choice_needs_two_names() -> None:
    for names in (("a",), ("a", "a"), ("a", "b", "b")):
        with pytest.raises(ValueError, match="at least two different names"):
            choice(*names)


# --- failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["failed", "oom", "timeout", "unsupported"])
def test_failed_trials_are_counted_and_told_and_the_search_goes_on(
    bench: Bench, status: str
) -> None:
    def outcome(cell: Cell) -> float | str:
        config = cell.method.config
        return status if config.get("epochs", 1) > 2 else quality(config)

    tuner = bench.tuner(trials=10)
    bench.run(tuner, outcome)
    assert len(bench.told) == 20
    found = tuner.results()["two"]
    failed = [t.settings for t in bench.told if t.method == "two" and t.score is None]
    assert found.failed == len(failed) > 0
    assert all(s["epochs"] > 2 for s in failed)
    assert found.settings.get("epochs", 1) <= 2
    assert found.trials == 10
    assert tuner.results()["one"].failed == 0


def test_defaults_that_fail_have_no_score_and_others_can_be_found(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: "oom" if cell.method.config.get("weight") == 0.5 else 0.25)
    found = tuner.results()["one"]
    assert (found.default_score, found.score, found.failed) == (None, 0.25, 1)
    assert found.settings == bench.tried("one")[1]  # the first of equals
    assert (found.gain, found.standard_error, found.not_taken) == (None, None, None)


def test_a_method_whose_every_trial_fails_has_no_result(bench: Bench) -> None:
    tuner = bench.tuner()
    bench.run(tuner, lambda cell: "failed" if cell.method.name == "two" else 0.5)
    assert set(tuner.results()) == {"one"}
    assert tuner.names == ["two", "one"]
    assert len(bench.tried("two")) == 6


# --- again ------------------------------------------------------------------------------


def test_the_same_command_again_runs_nothing_and_finds_the_same(bench: Bench) -> None:
    first = bench.tuner()
    bench.run(first)
    told, ran = list(bench.told), len(bench.ran)
    again = bench.tuner()
    assert again.begin() == []
    assert again.results() == first.results()
    assert sorted(map(repr, bench.told[len(told) :])) == sorted(map(repr, told))
    assert len(bench.ran) == ran


@pytest.mark.parametrize("most", [1, 2, 5, 9, 13])
def test_a_stopped_search_goes_on_as_if_it_had_not_been(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory, most: int
) -> None:
    whole = fresh(tmp_path_factory)
    undisturbed = whole.tuner()
    runs = whole.run(undisturbed)
    assert runs > 13
    bench.run(bench.tuner(), most=most)
    bench.told.clear()
    resumed = bench.tuner()
    assert bench.run(resumed) == runs - most
    assert resumed.results() == undisturbed.results()
    for name in resumed.names:
        assert bench.tried(name) == whole.tried(name)


def test_more_trials_later_do_not_run_the_defaults_again(bench: Bench) -> None:
    """A longer search draws more of its trials at random first, so the others may differ."""
    bench.run(bench.tuner(trials=4))
    jobs = bench.tuner(trials=8).begin()
    assert [(t.method, t.trial) for t in bench.told if t.trials == 8][:1] == [("two", 1)]
    assert {job.cells[0].identity for job in jobs}.isdisjoint(c.identity for c in bench.ran[:4])


def test_an_interrupted_run_is_made_again_and_a_failed_one_is_not(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "one"))
    first, second = tuner.begin()
    for job, status in ((first, "interrupted"), (second, "timeout")):
        record = bench.record(job, status)
        bench.store.write(record)
        assert tuner.ended(Ended(job, [record], [])) == []  # Ctrl-C: nothing follows
    resumed = bench.tuner(SUITE.replace("two, one", "one"))
    (again,) = resumed.begin()
    assert (again.cells, again.attempts) == (first.cells, (1,))
    record = bench.record(again, 0.5)
    bench.store.write(record)
    (following,) = resumed.ended(Ended(again, [record], []))  # the defaults failed: the next trial
    assert following.cells[0].method.config != first.cells[0].method.config
    assert following.attempts == (0,)


def test_a_search_depends_on_no_other_method_and_on_no_order_of_endings(
    bench: Bench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bench.run(bench.tuner())
    for text, last in (
        (SUITE.replace("two, one", "two"), False),
        (SUITE.replace("two, one", "one, twin, whole, two"), False),
        (SUITE, True),
    ):
        other = fresh(tmp_path_factory)
        other.run(other.tuner(text), last=last)
        assert other.tried("two") == bench.tried("two")


def test_methods_with_the_same_settings_do_not_try_the_same_values(bench: Bench) -> None:
    bench.run(bench.tuner(SUITE.replace("one", "twin")))
    assert bench.tried("two")[1:] != bench.tried("twin")[1:]


# --- values -----------------------------------------------------------------------------


def test_values_are_inside_their_bounds_short_and_of_their_type(bench: Bench) -> None:
    bench.run(bench.tuner(trials=20))
    for tried in bench.tried("two")[1:]:
        assert set(tried) == {"learning_rate", "epochs"}
        assert isinstance(tried["learning_rate"], float)
        assert 1e-5 <= tried["learning_rate"] <= 1e-1
        assert tried["learning_rate"] == float(f"{tried['learning_rate']:.{DIGITS}g}")
        assert type(tried["epochs"]) is int
        assert 1 <= tried["epochs"] <= 5
    for cell in bench.ran:
        config = registry.load("method", cell.method.name).Config
        assert config.model_validate(cell.method.config).model_dump() == cell.method.config
        assert cell.method.config.get("fixed", 7) == 7
    rates = sorted(t["learning_rate"] for t in bench.tried("two")[1:])
    assert rates[0] < 1e-3 < rates[-1]  # on a logarithmic scale few of 19 would be uniform's


@settings(max_examples=25)
@given(
    low=st.floats(1e-6, 10), width=st.floats(1e-3, 10), log=st.booleans(), whole=st.booleans(),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_no_rounding_leaves_the_bounds(
    low: float, width: float, log: bool, whole: bool, seed: int
) -> None:
    import optuna

    low, high = (math.ceil(low), math.ceil(low) + round(width)) if whole else (low, low + width)
    searched = Searched("x", low, high, log, whole)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(5):
        value = rounded(study.ask({"x": distribution(searched)}).params["x"], searched)
        assert low <= value <= high
        assert isinstance(value, int if whole else float)


def test_a_search_space_is_read_off_the_settings() -> None:
    class Config(MethodConfig):
        rate: float = tunable(0.1, 0.01, 1.0, unit="1/s", log=True, ge=0.001, le=2.0)
        count: int = tunable(3, 1, 9)
        kind: Literal["a", "b", "c"] = choice("b", "a")
        plain: float = 5.0

    assert list(search_space(Config)) == [
        Searched("rate", 0.01, 1.0, True, False), Searched("count", 1, 9, False, True),
        SearchedChoice("kind", ("b", "a")),
    ]  # fmt: skip
    assert Config().model_dump() == {"rate": 0.1, "count": 3, "kind": "b", "plain": 5.0}
    assert Config(rate=0.001, count=9).rate == 0.001  # accepted, though not searched
    assert Config(kind="c").kind == "c"
    for bad in (
        {"kind": "d"},
        {"rate": 2.1},
        {"rate": 0.0009},
        {"count": 0},
        {"count": 10},
        {"count": 2.5},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Config(**bad)
    assert list(search_space(MethodConfig)) == []


# --- what is not tuned ------------------------------------------------------------------


def test_methods_that_cannot_be_tuned_are_named_with_the_reason(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "nothing, labels, one"))
    assert tuner.names == ["one"]
    assert set(tuner.untunable) == {"nothing", "labels"}
    assert tuner.untunable["nothing"] == "it has no setting to search"
    assert "labels needs target labels" in tuner.untunable["labels"]
    bench.run(tuner)
    assert len(bench.told) == 6


def test_what_the_suite_gives_is_kept_and_not_searched(bench: Bench) -> None:
    text = SUITE.replace("two, one", "{name: two, epochs: 3, fixed: 1}, {name: one, weight: 0.1}")
    tuner = bench.tuner(text)
    assert tuner.names == ["two"]
    assert tuner.untunable == {"one": "the suite gives every setting that would be searched"}
    bench.run(tuner)
    for cell in bench.ran:
        assert (cell.method.config["epochs"], cell.method.config["fixed"]) == (3, 1)
    assert all(set(s) == {"learning_rate"} for s in bench.tried("two")[1:])


def test_a_method_listed_twice_is_tuned_as_its_first_listing(bench: Bench) -> None:
    twice = SUITE.replace("two, one", "{name: two, fixed: 1}, two").replace(
        "seeds: 2", "supervised_references: [two]\nseeds: 2"
    )
    tuner = bench.tuner(twice, trials=3)
    assert tuner.names == ["two"]
    assert bench.run(tuner) == tuner.results()["two"].runs == sum(t.runs for t in bench.told)
    assert {(c.method.config["fixed"], c.target_labels) for c in bench.ran} == {(1, False)}


def test_a_method_that_needs_labels_is_tuned_as_the_reference_that_it_is(bench: Bench) -> None:
    text = SUITE.replace("two, one", "one, labels").replace(
        "seeds: 2", "supervised_references: [labels]\nseeds: 2"
    )
    tuner = bench.tuner(text, trials=1)
    assert (tuner.names, tuner.untunable) == (["one", "labels"], {})
    assert bench.run(tuner) == 4
    assert {c.target_labels for c in bench.ran if c.method.name == "labels"} == {True}


# --- a search that starts from another method's ---------------------------------------------


STARTS = SUITE.replace("two, one", "more, one, two")


@pytest.mark.parametrize("last", [False, True])
def test_a_penalised_method_starts_from_the_plain_ones_best(bench: Bench, last: bool) -> None:
    """Whatever is run first its second trial waits: the other's best and its own default."""
    tuner = bench.tuner(STARTS, trials=5)
    bench.run(tuner, last=last)
    assert len(bench.told) == 15
    best = tuner.results()["two"].settings
    assert best
    first, second, *others = bench.tried("more")
    assert (first, second) == ({}, {**best, "weight": 0.5})
    assert len(others) == 3
    assert tuner.startless == []
    assert tuner.results()["more"].score >= quality({**best, "weight": 0.5})


def test_where_the_plain_ones_defaults_are_best_they_are_what_is_tried(bench: Bench) -> None:
    """Its defaults are not this method's: one pass, not two."""
    tuner = bench.tuner(STARTS, trials=2)
    bench.run(tuner, lambda cell: 0.5)  # of equal scores the defaults stand
    assert tuner.results()["two"].settings == {}
    assert bench.tried("more")[1] == {"learning_rate": 0.001, "epochs": 1, "weight": 0.5}


def test_the_start_is_taken_from_the_file_that_is_added_to(bench: Bench) -> None:
    whole = bench.tuner(STARTS, trials=4)
    bench.run(whole)
    tried, known = bench.tried("more"), whole.results()
    suite, cells = bench.suite(SUITE.replace("two, one", "more, one"))
    alone = Bench(bench.folder / "alone")
    tuner = Tuner(suite, cells, 4, alone.store, alone.told.append, known)
    alone.run(tuner)
    assert alone.tried("more") == tried
    unknown = Tuner(suite, cells, 4, alone.store, lambda tried: None)
    assert (tuner.startless, unknown.startless) == ([], ["more"])


def test_settings_that_the_suite_gives_are_no_start(bench: Bench) -> None:
    given = "{name: more, learning_rate: 0.001, epochs: 1}, {name: two, learning_rate: 0.002}"
    tuner = bench.tuner(SUITE.replace("two, one", given), trials=3)
    bench.run(tuner)
    assert all(list(settings) == ["weight"] for settings in bench.tried("more")[1:])


@pytest.mark.parametrize("last", [False, True])
def test_a_search_with_a_start_goes_on_the_same_wherever_it_was_stopped(
    bench: Bench, last: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """After every run, and so also where one search has ended and the other has begun with it."""
    other = fresh(tmp_path_factory)
    runs = other.run(other.tuner(STARTS, trials=4), last=last)
    done = 0
    while done < runs:
        assert bench.run(bench.tuner(STARTS, trials=4), most=1, last=last) == 1
        done += 1
    bench.told.clear()
    assert bench.tuner(STARTS, trials=4).begin() == []
    for name in ("more", "one", "two"):
        assert bench.tried(name) == other.tried(name)


# --- the validation runs of a trial -----------------------------------------------------


def test_a_trial_is_the_mean_over_its_seeds(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: [3, 5]")
    assert [j.cells[0].seed for j in bench.tuner(text).begin()] == [3, 5, 3, 5]
    bench.run(
        bench.tuner(text, trials=4),
        lambda cell: quality(cell.method.config) - (0.25 if cell.seed == 5 else 0),
    )
    for name, _, _, score, tried, runs in bench.told:
        default = {"two": {"learning_rate": 0.001, "epochs": 1}, "one": {"weight": 0.5}}[name]
        lost = 0.125 if runs == 2 else 0
        assert score == pytest.approx(quality(tried or default) - lost)


def test_a_trial_waits_for_all_its_seeds_and_fails_with_one_of_them(bench: Bench) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "one"))
    first, second = tuner.begin()
    for job, outcome in ((first, 0.5), (second, "failed")):
        assert bench.told == []
        record = bench.record(job, outcome)
        bench.store.write(record)
        jobs = tuner.ended(Ended(job, [record], []))
        assert len(jobs) == (0 if job is first else 1)
    assert bench.told == [("one", 1, 6, None, {}, 2)]


def test_only_the_missing_run_of_a_trial_is_made_on_resume(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 3").replace("two, one", "one")
    bench.run(bench.tuner(text), most=2)
    (job,) = bench.tuner(text).begin()
    assert (job.cells[0].seed, job.cells[0].method.config) == (2, {"weight": 0.5})


def test_trials_below_the_better_half_are_stopped_and_the_defaults_are_not(bench: Bench) -> None:
    """By successive halving: after 1, 2 ... runs, as Optuna's pruner has it."""
    text = SUITE.replace("seeds: 2", "seeds: 4").replace("two, one", "one")
    tuner = bench.tuner(text, trials=12)
    bench.run(
        tuner, lambda c: 0.0 if c.method.config["weight"] == 0.5 else quality(c.method.config)
    )
    told = bench.told
    assert told[0].runs == 4
    assert {t.runs for t in told[1:]} <= {1, 2, 4}
    first = [t.score for t in told[1:]]
    for i, tried in enumerate(told[1:]):
        so_far = sorted(first[: i + 1], reverse=True)
        among_the_better = tried.score in so_far[: max(len(so_far) // 2, 1)]
        assert (tried.runs > 1) == among_the_better
    found = tuner.results()["one"]
    assert found.runs == sum(t.runs for t in told) < 12 * 4
    assert found.first_scores == pytest.approx([0.0, *first], abs=1e-6)
    assert found.steps == {k: v * found.runs for k, v in RESULTS.costs.steps.items()}


def test_a_stopped_trial_is_not_chosen_though_its_first_run_was_good(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 4").replace("two, one", "one")

    def outcome(cell: Cell) -> float:
        weight = cell.method.config["weight"]
        return 0.5 if weight == 0.5 else 0.9 - weight / 100 if cell.seed == 0 else 0.1

    tuner = bench.tuner(text, trials=8)
    bench.run(tuner, outcome)
    found = tuner.results()["one"]
    assert found.settings == {}
    assert found.score == found.default_score == 0.5


def test_seeds_take_the_draws_of_the_source_in_turn(bench: Bench) -> None:
    text = SUITE.replace("seeds: 2", "seeds: 5\nsource_draws: 2").replace("two, one", "one")
    suite, cells = bench.suite(text)
    assert len(cells) == 2 * 5
    runs = [(cell.seed, cell.source_draw) for cell in validation_runs(suite, cells)]
    assert runs == [(0, 0), (1, 1), (2, 0), (3, 1), (4, 0)]


def test_a_search_needs_two_validation_runs(bench: Bench) -> None:
    with pytest.raises(BenchError, match=r"one validation run .* give two or more seeds"):
        bench.tuner(SUITE.replace("seeds: 2", "seeds: 1"))


# --- the stream that is searched on -----------------------------------------------------


def test_the_validation_suite_is_the_suite_on_its_validation_stream(bench: Bench) -> None:
    suite, _ = bench.suite(SUITE.replace("toy-shift", "{name: toy-shift, shifts: [shear]}"))
    searched = validation_suite(suite)
    assert searched.name == "mine-validation"
    assert searched.stream.name == "toy-shift"
    assert searched.stream.config == {"part": "validation", "shifts": ["blur"]}
    same = {"name", "stream"}
    assert searched.model_dump(exclude=same) == suite.model_dump(exclude=same)
    cells = make_cells(searched, bench.folder / "mine.yaml")
    assert {c.stream.config["part"] for c in cells} == {"validation"}


def test_a_stream_without_a_validation_stream_says_what_to_implement(bench: Bench) -> None:
    suite, _ = bench.suite(SUITE.replace("toy-shift", "toy-without"))
    with pytest.raises(
        BenchError, match=re.escape("ToyWithout has no validation stream: implement validation")
    ):
        validation_suite(suite)


def test_the_digits_validation_shares_no_shift_with_the_test(bench: Bench) -> None:
    stream = registry.load("stream", "digits-shift")
    config = stream.Config()
    validation = stream.validation(config)
    assert set(validation.shifts).isdisjoint(config.shifts)
    assert stream.Config.model_validate(validation.model_dump(mode="json")) == validation


def test_tuned_settings_are_written_beside_a_users_suite_and_never_into_the_package(
    tmp_path: Path,
) -> None:
    assert default_out(tmp_path / "a" / "mine.yaml", tmp_path) == tmp_path / "a/mine.tuned.yaml"
    assert default_out(tmp_path / "mine.yaml", tmp_path) == Path("mine.tuned.yaml")


# --- what the command refuses before anything runs ------------------------------------------


@pytest.fixture
def refusal(bench: Bench, plugin: Path) -> Callable[..., str]:
    """The error of ``bench tune``; nothing is written."""

    def ask(text: str = SUITE, **options: Any) -> str:
        suite = bench.folder / "mine.yaml"
        suite.write_text(text)
        before = sorted(bench.folder.rglob("*"))
        with pytest.raises(BenchError) as caught:
            command(
                suite=str(suite), plugins=[plugin], jobs=1,
                **{"store": bench.folder / "trials", "trials": 2, **options},
            )  # fmt: skip
        assert sorted(bench.folder.rglob("*")) == before
        return str(caught.value)

    return ask


def test_a_suite_with_nothing_to_tune_writes_no_file(
    refusal: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = refusal(methods="nothing")
    assert text.endswith("nothing to tune; name other methods with --methods")
    assert "nothing: not tuned: it has no setting to search" in capsys.readouterr().err


def test_a_mistake_in_the_suite_is_the_one_line_that_planning_gives(
    refusal: Callable[..., str],
) -> None:
    text = refusal(SUITE.replace("toy-shift", "{name: toy-shift, shfts: [a]}"))
    assert "mine.yaml: stream 'toy-shift': key 'shfts': unknown" in text
    assert "unknown stream 'toy-shfit'" in refusal(SUITE.replace("toy-shift", "toy-shfit"))
    assert "key 'epochs': 0 is not allowed" in refusal(
        SUITE.replace("[two", "[{name: two, epochs: 0}")
    )


def test_a_stream_without_validation_is_refused(refusal: Callable[..., str]) -> None:
    assert "no validation stream" in refusal(SUITE.replace("toy-shift", "toy-without"))


def test_an_out_that_cannot_be_written_is_refused(
    refusal: Callable[..., str], tmp_path: Path
) -> None:
    assert refusal(out=tmp_path).endswith("is a folder; name a file")
    file = tmp_path / "file"
    file.write_text("")
    assert f"--store {file}: is a file; name a folder" in refusal(store=file)


def test_settings_tuned_under_another_budget_are_not_written_over(
    refusal: Callable[..., str], bench: Bench, tmp_path: Path
) -> None:
    tuner = bench.tuner(SUITE.replace("two, one", "two, one, whole"), trials=1)
    bench.run(tuner)
    out = tmp_path / "mine.tuned.yaml"
    suite, cells = bench.suite()
    write_tuned(out, tuned_file(suite, suite, cells, tuner, 1, False))
    kept = out.read_bytes()
    text = refusal(methods="one")
    assert text.startswith(f"--out {out}: has settings of other methods that were tuned with ")
    assert text.endswith("tune all of its methods, or name another file")
    assert "were tuned with validation" in refusal()
    assert out.read_bytes() == kept


def test_a_method_tuned_under_the_same_budget_joins_the_others(bench: Bench) -> None:
    text = SUITE.replace("two, one", "two, one, whole")
    first = bench.tuner(text, trials=2)
    bench.run(first)
    suite, cells = bench.suite(text)
    old = tuned_file(suite, suite, cells, first, 2, False)
    new = old.model_copy(
        update={
            "command": "bench tune --methods one",
            "methods": {"one": old.methods["one"].model_copy(update={"score": 0.125})},
        }
    )
    both = merged(old, new)
    assert list(both.methods) == ["two", "one", "whole"]
    assert both.methods["two"] == old.methods["two"]
    assert both.methods["one"].score == 0.125
    assert both.methods["one"].command == "bench tune --methods one"
    assert both.command == old.command
    for name, other in (
        ("trials", 3),
        ("seeds", [0, 2]),
        ("source_draws", 3),
        ("rule", "another"),
        ("oracle", True),
        ("data", "other"),
    ):
        with pytest.raises(BenchError, match=f"were tuned with {name} "):
            merged(old, new.model_copy(update={name: other}))


def test_every_variant_of_the_model_is_searched_for_itself(bench: Bench) -> None:
    """The same number of trials each; a method that starts from the full model only once."""
    text = SUITE.replace("two, one", "two, from-full") + "variants: [full, compressed:4]\n"
    tuner = bench.tuner(text, trials=3)
    assert tuner.names == ["two", "two@compressed:4", "from-full"]
    bench.run(tuner)
    tried = [t.method for t in bench.told]
    assert {key: tried.count(key) for key in tuner.names} == dict.fromkeys(tuner.names, 3)
    assert {cell.variant is None for cell in bench.ran if cell.method.name == "two"} == {
        True,
        False,
    }


def test_settings_of_a_variant_are_its_own_else_those_of_the_full_model(bench: Bench) -> None:
    text = SUITE.replace("two, one", "two, one") + "variants: [full, compressed:4]\n"
    tuner = bench.tuner(text, trials=1)
    bench.run(tuner)
    suite, cells = bench.suite(text)
    made = tuned_file(suite, suite, cells, tuner, 1, False)
    found = made.methods["two"]
    methods = {
        "two": found.model_copy(update={"settings": {"epochs": 2}}),
        "two@compressed:4": found.model_copy(update={"settings": {"epochs": 3}}),
        "one": made.methods["one"].model_copy(update={"settings": {"weight": 0.25}}),
    }
    settled = make_cells(
        suite, bench.folder / "mine.yaml", made.model_copy(update={"methods": methods})
    )
    used = {cell.tuning_key: cell.method.config for cell in settled}
    assert used["two"]["epochs"] == 2
    assert used["two@compressed:4"]["epochs"] == 3
    assert used["one"]["weight"] == used["one@compressed:4"]["weight"] == 0.25
