"""The periodic protocol: who is asked what in which order, and what a reset brings back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
import torch
from event_log import EventLog
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.contracts.method import Method, MethodConfig
from bench.contracts.protocol import protocol_config
from bench.contracts.task import make_task
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, DeviceOutOfMemory, LabelsHidden, Unsupported
from bench.run.arrivals import target_view
from bench.run.evaluator import Evaluator
from bench.run.protocols.base import Deployment, StreamResult, run_stream
from bench.run.validity import build_stream
from bench.run.window import Window
from bench.tasks.class_scores import ClassScore
from bench.testing import TinyModel, TinyStream, TinyStreamConfig, make_device

SAMPLES, TESTS = 12, 8


def counting() -> CostTracker:
    return make_tracker([make_device()], list)


class ToyStream(TinyStream):
    """The label is 1 for all but the first i samples of domain i; the source is domain 0."""

    def __init__(self) -> None:
        super().__init__(TinyStreamConfig(domains=3, samples=SAMPLES, tests=TESTS))

    def labels(self, place: int, number: Tensor) -> Tensor:
        return (number >= place).long()


def linear() -> TinyModel:
    torch.manual_seed(0)
    return TinyModel(nn.Linear(2, 2), "")


class Fake(Method):
    """Says class 1 to everything, and tells a list (kept outside itself) what it is asked."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.model = linear()
        self.adapted = 0

    events: EventLog

    def predict(self, x: Tensor) -> Tensor:
        type(self).events.append(("predict", int(x[0, 0])))
        assert not torch.is_grad_enabled()
        return torch.tensor([0.0, 1.0]).repeat(len(x), 1)

    def adapt(self, domain: DomainView, window: Window) -> None:
        type(self).events.append(("adapt", domain.name))
        self.adapted += 1  # else its predictions would not be asked for again


@pytest.fixture
def run(make_device: Callable[..., Any]) -> Callable[..., StreamResult]:
    def go(
        method: Method, labelled: bool = False, seed: int = 0, devices: Any = None,
        logger: Any = None, **protocol: Any,
    ) -> StreamResult:  # fmt: skip
        tracker = make_tracker(devices or [make_device("toy")], method.stored)
        config = protocol_config({"batch_size": TESTS, "window_s": 1000.0, **protocol})
        stream = build_stream(ToyStream())
        return run_stream(
            config,
            Deployment(method, stream, tracker, labelled, seed, logger=logger),
        )

    return go


def test_each_domain_is_evaluated_adapted_and_evaluated_and_all_again_at_the_end(
    run: Callable[..., StreamResult],
) -> None:
    Fake.events = EventLog()
    stream = run(Fake())
    assert Fake.events == [
        ("predict", 0),
        ("predict", 1), ("adapt", "first"), ("predict", 1),
        ("predict", 2), ("adapt", "second"), ("predict", 2),
        ("predict", 3), ("adapt", "third"), ("predict", 3),
        ("predict", 1), ("predict", 2),  # not the third: nothing changed since
        ("predict", 0),
    ]  # fmt: skip
    assert [s.name for s in stream.stages] == list(ToyStream.NAMES)
    assert (stream.source_before, stream.source_after) == (1.0, 1.0)
    for i, stage in enumerate(stream.stages, start=1):  # i of 8 labels are not class 1
        assert (stage.before, stage.after, stage.final) == ((TESTS - i) / TESTS,) * 3
        assert (stage.adaptation_samples, stage.test_samples) == (SAMPLES, TESTS)
        assert stage.window_closed is False
        assert (stage.charges["toy"].time_s, stage.charges["toy"].steps) == (0.0, 0)


def test_with_a_reset_after_each_domain_no_final_look_back_is_needed(
    run: Callable[..., StreamResult],
) -> None:
    Fake.events = EventLog()
    run(Fake(), reset="domain")
    assert Fake.events[-4:] == [
        ("predict", 3), ("adapt", "third"), ("predict", 3), ("predict", 0),
    ]  # fmt: skip


def test_the_logger_hears_both_accuracies_of_every_domain(run: Callable[..., StreamResult]) -> None:
    Fake.events, heard = EventLog(), []
    run(Fake(), logger=lambda *event: heard.append(event))
    assert heard == [
        event
        for i in range(3)
        for event in (
            ("accuracy/before", (7 - i) / 8, i), ("accuracy/after", (7 - i) / 8, i),
        )
    ]  # fmt: skip


class Learner(Method):
    """Trains the linear layer with Adam on entropy, two launches or more each step."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.model = linear()
        self.optimizer = torch.optim.Adam(self.model.module.parameters(), lr=0.5)
        self.counter = torch.zeros(1)

    seen: EventLog

    def adapt(self, domain: DomainView, window: Window) -> None:
        before = copy.deepcopy(self.model.module.state_dict())
        type(self).seen.append(
            {
                "weights": before,
                "state": len(self.optimizer.state),
                "counter": float(self.counter),
                "same": self.optimizer.param_groups[0]["params"][0] is self.model.module.weight,
                "late": hasattr(self, "late"),
            }
        )
        self.late = domain.name
        for batch in window.steps(domain.batches()):
            p = self.model(batch.x).softmax(dim=1)
            loss = -(p * p.log()).sum()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.counter += 1
        after = self.model.module.state_dict()
        type(self).seen[-1]["moved"] = not torch.equal(after["weight"], before["weight"])


def test_a_reset_restores_weights_optimizer_and_state_before_each_domain(
    run: Callable[..., StreamResult],
) -> None:
    Learner.seen = EventLog()
    method = Learner()
    start = copy.deepcopy(method.model.module.state_dict())
    run(method, reset="domain")
    assert len(Learner.seen) == 3
    for seen in Learner.seen:
        assert all(torch.equal(seen["weights"][k], start[k]) for k in start)
        assert seen["state"] == 0
        assert seen["counter"] == 0
        assert seen["same"]  # the restored optimizer moves the restored model
        assert seen["moved"]


def test_a_reset_takes_away_what_adapting_added(run: Callable[..., StreamResult]) -> None:
    Learner.seen = EventLog()
    run(Learner(), reset="domain")
    assert [seen["late"] for seen in Learner.seen] == [False, False, False]


def test_without_a_reset_the_method_goes_on_where_it_was(run: Callable[..., StreamResult]) -> None:
    Learner.seen = EventLog()
    run(Learner(), reset="never")
    first, second, third = (seen["weights"]["weight"] for seen in Learner.seen)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    assert [seen["counter"] for seen in Learner.seen] == [0, 2, 4]
    assert [seen["late"] for seen in Learner.seen] == [False, True, True]


class Beside(Learner):
    """Holds a running stream of source batches, as methods with source data do."""

    def __init__(self) -> None:
        super().__init__()
        x = torch.rand(8, 2)
        view = DomainView("source", x, None, 2, torch.Generator().manual_seed(0))
        self.beside = view.infinite()

    def adapt(self, domain: DomainView, window: Window) -> None:
        type(self).seen.append(next(self.beside).x)


def test_a_method_that_holds_what_cannot_be_copied_is_told_so(
    run: Callable[..., StreamResult],
) -> None:
    Beside.seen = EventLog()
    with pytest.raises(Unsupported, match="reset: domain needs a method whose state can be copied"):
        run(Beside(), reset="domain")


class OneLaunch(Method):
    """A step is one launch, so a second on the toy device."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.model = linear()

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches(10)):
            batch.x + 1


def test_every_domain_has_a_window_of_its_own(run: Callable[..., StreamResult]) -> None:
    stream = run(OneLaunch(), batch_size=4, window_s=7.5)
    for stage in stream.stages:
        assert stage.charges["toy"].steps == 7
        assert stage.charges["toy"].time_s == 7.0
        assert stage.window_closed is True


def test_a_window_that_is_not_used_up_does_not_count_as_closed(
    run: Callable[..., StreamResult],
) -> None:
    stream = run(OneLaunch(), batch_size=4, window_s=30.5)
    assert [s.charges["toy"].steps for s in stream.stages] == [30, 30, 30]
    assert [s.window_closed for s in stream.stages] == [False, False, False]


class Breaks(OneLaunch):
    """Raises inside a counted step of the second domain."""

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            batch.x + 1
            if domain.name == "second":
                raise RuntimeError("inside the step")


def test_an_exception_inside_a_step_leaves_no_counting_mode(
    run: Callable[..., StreamResult],
) -> None:
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    with pytest.raises(RuntimeError, match="inside the step"):
        run(Breaks(), batch_size=5)
    assert _get_current_dispatch_mode_stack() == []


def test_a_device_too_small_for_inference_is_out_before_the_stream_begins(
    run: Callable[..., StreamResult], make_device: Callable[..., Any]
) -> None:
    Fake.events = EventLog()
    with pytest.raises(DeviceOutOfMemory, match="inference needs"):
        run(Fake(), devices=[make_device("tiny", memory=8.0, runtime=4.0)])
    assert Fake.events == [("predict", 0)]


# --- what a target view holds --------------------------------------------------


def target(**changes: Any) -> DomainView:
    arguments: dict[str, Any] = {"labelled": False, "seed": 0}
    protocol = protocol_config({"batch_size": 5, "samples": changes.pop("samples", None)})
    name = changes.pop("name", "first")
    domain = ToyStream().domain(name)
    return target_view(domain, protocol, **{**arguments, **changes})


def drawn(view: DomainView) -> list[float]:
    return view.x[:, 1].tolist()


def test_a_target_view_has_labels_only_if_labelled() -> None:
    assert not target().labelled
    with pytest.raises(LabelsHidden):
        target().y  # noqa: B018
    view = target(labelled=True)
    assert torch.equal(view.y, (view.x[:, 1] >= 1).long())  # those of its inputs


def test_a_target_view_is_the_whole_adaptation_split_without_a_budget() -> None:
    assert sorted(drawn(target())) == [float(k) for k in range(SAMPLES)]


@pytest.mark.parametrize("samples", [1, 5, SAMPLES])
def test_the_sample_budget_takes_the_first_of_the_seeds_order(samples: int) -> None:
    assert len(target(samples=samples)) == samples
    assert drawn(target(samples=samples)) == drawn(target())[:samples]


def test_a_budget_above_the_split_takes_the_split() -> None:
    assert len(target(samples=SAMPLES + 1)) == SAMPLES


def test_samples_and_order_depend_on_seed_and_domain_and_not_on_the_labels() -> None:
    def order(**changes: Any) -> list[list[float]]:
        view = target(samples=10, **changes)
        return [b.x[:, 1].tolist() for b in view.batches(2)]

    torch.manual_seed(1)
    first = order()
    torch.manual_seed(2)
    assert order() == first
    assert order(labelled=True) == first
    assert order(seed=1) != first
    assert order(name="second") != first


def test_changing_a_view_does_not_change_the_domain() -> None:
    domain = ToyStream().domain("first")
    kept = domain.adaptation.x.clone(), domain.adaptation.y.clone()
    view = target_view(domain, protocol_config({}), True, 0)
    view.x.zero_()
    view.y.fill_(9)
    assert torch.equal(domain.adaptation.x, kept[0])
    assert torch.equal(domain.adaptation.y, kept[1])


# --- evaluation ------------------------------------------------------------------


def evaluator(method: Method, tracker: CostTracker, batch_size: int) -> Evaluator:
    return Evaluator(method, tracker, batch_size, make_task("classification"), 2)


class Cheat(Fake):
    """Tries to be scored by itself, or to learn while it predicts, or to be paid for one row."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.seen: list[int] = []
        self.model.rules.score = self.praise  # type: ignore[method-assign]
        type(self).events = EventLog()

    def praise(self) -> Any:
        self.seen.append(1)
        return ClassScore()

    def adapt(self, domain: DomainView, window: Window) -> None:
        batches = window.steps(domain.batches())
        if self.way == "outside":
            for batch in [batch for batch in batches if self.model(batch.x) is not None]:
                self.learn(batch.x)
        if self.way == "keeps":
            self.kept = [*getattr(self, "kept", []), domain]
            for view in self.kept:
                len(view)

    def predict(self, x: Tensor) -> Tensor:
        if self.way == "learns":
            self.learn(x)
        return self.model(x)[:1] if self.way == "one row" else self.model(x)

    @torch.no_grad()
    def learn(self, x: Tensor) -> None:
        self.model.module.weight.add_(0.1)


def test_a_method_that_replaces_the_metric_changes_no_score_and_sees_no_label(
    run: Callable[..., StreamResult], make_device: Callable[..., Any]
) -> None:
    method = Cheat("scores itself")
    method.model = linear()
    method.model.rules.score = method.praise  # type: ignore[method-assign]
    test = ToyStream().domain("third").test
    with torch.no_grad():
        honest = float((method.model(test.x).argmax(dim=1) == test.y).float().mean())
    assert evaluator(method, counting(), TESTS).scores(test, "a test split").value == honest
    assert method.seen == []


@pytest.mark.parametrize(
    ("way", "complaint"),
    [
        ("learns", "predict of Cheat changes the method's state"),
        ("one row", r"gave outputs of shape \(1, 2\), not \(8, 2\)"),
        ("outside", "weights changed outside a step"),
        ("keeps", "keep samples of it as replay memory"),
    ],
)
def test_what_would_be_free_or_wrong_is_refused(
    run: Callable[..., StreamResult], way: str, complaint: str
) -> None:
    with pytest.raises(BenchError, match=complaint):
        run(Cheat(way))


@pytest.mark.parametrize("batch_size", [1, 3, TESTS, 100])
def test_accuracy_is_hits_over_samples_for_any_batch_size(batch_size: int) -> None:
    Fake.events = EventLog()
    test = ToyStream().domain("third").test
    assert evaluator(Fake(), counting(), batch_size).scores(test, "a test split").value == 5 / 8
    assert len(Fake.events) == -(-TESTS // batch_size)


@pytest.mark.parametrize(("batch_size", "priced"), [(3, 3), (TESTS, TESTS), (100, TESTS)])
def test_inference_is_priced_on_a_full_batch_where_there_is_one(
    make_device: Callable[..., Any], batch_size: int, priced: int
) -> None:
    Fake.events = EventLog()
    method = Fake()
    tracker = make_tracker([make_device()], method.stored)
    test = ToyStream().domain("third").test
    evaluator(method, tracker, batch_size).scores(test, "a test split", priced=True)
    assert tracker.devices[0].inference_samples == priced
    assert len(Fake.events) == -(-TESTS // batch_size)  # priced, not predicted twice


def test_inference_costs_what_its_operators_cost(make_device: Callable[..., Any]) -> None:
    method = OneLaunch()
    tracker = make_tracker([make_device(launch=0.25)], method.stored)
    evaluator(method, tracker, TESTS).scores(ToyStream().source().test, "a test split", priced=True)
    device = tracker.devices[0]
    assert device.inference is not None
    assert device.inference.time_s == 0.25  # one addmm
    assert device.window.time_s == 0.0  # prediction is not on the window
    outputs, inputs, weights = TESTS * 2 * 4, TESTS * 2 * 4, (2 * 2 + 2) * 4
    assert device.peak_bytes == outputs + inputs + weights


@pytest.mark.parametrize(
    "bad",
    [
        {"window_s": 0}, {"window_s": -1}, {"window_s": float("inf")}, {"batch_size": 0},
        {"samples": 0}, {"reset": "always"}, {"windows": 1},
    ],
)  # fmt: skip
def test_a_protocol_out_of_bounds_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        protocol_config(bad)


def test_an_unknown_protocol_is_refused_with_the_nearest() -> None:
    with pytest.raises(BenchError, match="unknown protocol 'offline': did you mean 'online'"):
        protocol_config({"name": "offline"})
