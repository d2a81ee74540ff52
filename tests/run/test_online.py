"""The online protocol: predict, then adapt, batch by batch, each sample once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from event_log import EventLog
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench.contracts.data import DomainView, uncounted
from bench.contracts.method import Method, MethodConfig
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Split
from bench.contracts.task import make_task
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.errors import BenchError, LabelsHidden
from bench.run.arrivals import arrivals, target_view
from bench.run.evaluator import Evaluator
from bench.run.protocols.base import Deployment, StreamResult, run_stream
from bench.run.validity import build_stream
from bench.run.window import Window
from bench.testing import TinyModel, TinyStream, make_device

NAMES, SAMPLES = TinyStream().domain_names(), TinyStream().config.samples


def sample_numbers(x: Tensor) -> list[int]:
    with uncounted():
        return x[:, 1].int().tolist()


def counting() -> CostTracker:
    return make_tracker([make_device()], list)


class Recorder(Method):
    """Tells a list, kept outside itself, what of the stream it is asked; predicts class 1."""

    events: EventLog

    def __init__(self, epochs: int = 1) -> None:
        super().__init__(MethodConfig())
        torch.manual_seed(0)
        self.model = TinyModel(nn.Linear(2, 2), "")
        self.epochs = epochs
        type(self).events = EventLog()

    def predict(self, x: Tensor) -> Tensor:
        place = int(x[0, 0])
        if place and x[0, 1] < TinyStream.TEST_MARK:  # the stream itself
            type(self).events.append(("predict", NAMES[place - 1], sample_numbers(x)))
        return torch.tensor([0.0, 1.0]).repeat(len(x), 1)

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches(self.epochs)):
            batch.x + 1  # one launch: one second on the toy device
            type(self).events.append(("adapt", domain.name, sample_numbers(batch.x)))


@pytest.fixture
def run(make_device: Callable[..., Any]) -> Callable[..., StreamResult]:
    def go(method: Method, labelled: bool = False, seed: int = 0, **protocol: Any) -> StreamResult:
        tracker = make_tracker([make_device("toy")], method.stored)
        config = protocol_config({"name": "online", "batch_size": 4, "window_s": 999, **protocol})
        stream = build_stream(TinyStream())
        return run_stream(config, Deployment(method, stream, tracker, labelled, seed))

    return go


def stream_of(kind: str, name: str) -> list[list[int]]:
    return [numbers for what, of, numbers in Recorder.events if (what, of) == (kind, name)]


def flat(batches: list[list[int]]) -> list[int]:
    return [number for batch in batches for number in batch]


# --- order ------------------------------------------------------------------------------


def test_each_batch_is_predicted_and_then_adapted_to(run: Callable[..., StreamResult]) -> None:
    run(Recorder())
    kinds = [(what, of, len(numbers)) for what, of, numbers in Recorder.events]
    assert kinds == [
        (what, name, n) for name in NAMES for n in (4, 4, 2) for what in ("predict", "adapt")
    ]
    pairs = zip(Recorder.events[::2], Recorder.events[1::2], strict=True)
    for (_, _, predicted), (_, _, adapted) in pairs:
        assert sorted(adapted) == sorted(predicted)  # the same samples, shuffled inside the batch


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_each_sample_is_given_once_whatever_the_epochs(
    run: Callable[..., StreamResult], epochs: int
) -> None:
    stream = run(Recorder(epochs))
    for name in NAMES:
        for kind in ("predict", "adapt"):
            assert sorted(flat(stream_of(kind, name))) == list(range(SAMPLES))
    assert [s.charges["toy"].steps for s in stream.stages] == [3, 3]
    assert [s.adaptation_samples for s in stream.stages] == [SAMPLES, SAMPLES]


class LoopsItself(Recorder):
    """Loops over its epochs itself, as a method with work between them does."""

    def adapt(self, domain: DomainView, window: Window) -> None:
        for _ in range(domain.max_passes(self.epochs)):
            for batch in window.steps(domain.batches()):
                self.model(batch.x)
                type(self).events.append(("adapt", domain.name, sample_numbers(batch.x)))


def test_a_method_that_asks_for_passes_gets_one_online_and_all_under_periodic(
    run: Callable[..., StreamResult],
) -> None:
    for protocol, passes in (("online", 1), ("periodic", 3)):
        run(LoopsItself(3), name=protocol)
        seen = [k for what, of, numbers in LoopsItself.events
                if (what, of) == ("adapt", "first") for k in numbers]  # fmt: skip
        assert sorted(seen) == sorted(list(range(SAMPLES)) * passes)


def test_no_epochs_is_no_pass_under_either_protocol(run: Callable[..., StreamResult]) -> None:
    for protocol in ("online", "periodic"):
        assert [s.charges["toy"].steps for s in run(Recorder(0), name=protocol).stages] == [0, 0]


def test_the_sample_budget_bounds_the_stream(run: Callable[..., StreamResult]) -> None:
    stream = run(Recorder(), samples=5)
    assert [len(b) for b in stream_of("predict", "first")] == [4, 1]
    assert [s.adaptation_samples for s in stream.stages] == [5, 5]


def test_the_order_is_the_seeds_and_no_methods(run: Callable[..., StreamResult]) -> None:
    class Greedy(Recorder):
        """Draws from every generator within reach before the next batch comes."""

        def adapt(self, domain: DomainView, window: Window) -> None:
            torch.rand(3)
            for _ in range(5):
                list(domain.batches())

    def arrived(method: Recorder, seed: int) -> list[list[int]]:
        run(method, seed=seed)
        return [numbers for what, _, numbers in type(method).events if what == "predict"]

    first = arrived(Recorder(), 0)
    assert arrived(Recorder(), 0) == first
    assert arrived(Greedy(), 0) == first
    assert arrived(Recorder(), 1) != first
    assert [sorted(b) for b in first] != sorted(sorted(b) for b in first)  # shuffled at all


def test_both_protocols_give_the_same_samples_in_the_same_order() -> None:
    domain = TinyStream().domain("first")
    protocol = protocol_config({"batch_size": 4, "samples": 7})
    arrived, _ = arrivals(domain, protocol, 5)
    assert torch.equal(arrived.x, target_view(domain, protocol, False, 5).x)
    assert torch.equal(arrived.y, (arrived.x[:, 1] % 2).long())


# --- what is handed over ----------------------------------------------------------------


class Looks(Recorder):
    """Looks for labels, and keeps the views it was given."""

    labels: list[Any]

    def adapt(self, domain: DomainView, window: Window) -> None:
        type(self).labels.append(domain.y.tolist() if domain.labelled else None)
        if not domain.labelled:
            for ask in (domain, next(domain.batches())):
                with pytest.raises(LabelsHidden):
                    ask.y  # noqa: B018
        assert domain.batch_size == 4
        if hasattr(self, "last"):
            with pytest.raises(BenchError, match="an online stream gives each batch once"):
                len(self.last)
        self.last = domain


@pytest.mark.parametrize("labelled", [False, True])
def test_labels_are_there_only_if_labelled_and_a_view_closes_after_its_batch(
    run: Callable[..., StreamResult], labelled: bool
) -> None:
    Looks.labels = []
    method = Looks()
    run(method, labelled=labelled)
    assert len(Looks.labels) == 6
    predicted = [numbers for what, _, numbers in Looks.events if what == "predict"]
    for labels, numbers in zip(Looks.labels, predicted, strict=True):
        assert labels == ([k % 2 for k in numbers] if labelled else None)
    with pytest.raises(BenchError, match="this batch of second is over"):
        len(method.last)


def test_a_method_that_changes_its_batch_changes_no_label_and_no_later_sample(
    run: Callable[..., StreamResult],
) -> None:
    class Vandal(Recorder):
        def adapt(self, domain: DomainView, window: Window) -> None:
            domain.x.fill_(5)
            domain.y.fill_(0)

    honest = run(Recorder(), labelled=True)
    events = [e for e in Recorder.events if e[0] == "predict"]
    spoilt = run(Vandal(), labelled=True)
    assert Vandal.events == events
    assert [s.online for s in spoilt.stages] == [s.online for s in honest.stages]


# --- the window -------------------------------------------------------------------------


@pytest.mark.parametrize("window_s", [1.5, 2.5, 4.0])
def test_the_batches_of_a_domain_share_a_window_and_then_only_predictions_are_asked(
    run: Callable[..., StreamResult], window_s: float
) -> None:
    stream = run(Recorder(), window_s=window_s, batch_size=2)
    for name, stage in zip(NAMES, stream.stages, strict=True):
        assert [len(b) for b in stream_of("adapt", name)] == [2] * int(window_s)
        assert [len(b) for b in stream_of("predict", name)] == [2] * 5  # to the stream's end
        assert stage.charges["toy"].steps == int(window_s)
        assert stage.charges["toy"].time_s == float(int(window_s))
        assert stage.window_closed is True


def test_a_closed_window_is_not_offered_again(run: Callable[..., StreamResult]) -> None:
    class Counts(Recorder):
        calls: list[str]

        def adapt(self, domain: DomainView, window: Window) -> None:
            type(self).calls.append(domain.name)
            super().adapt(domain, window)

    Counts.calls = []
    run(Counts(), window_s=1.5)
    assert Counts.calls == ["first", "first", "second", "second"]  # refused once, then no more


def test_a_window_that_suffices_is_not_closed(run: Callable[..., StreamResult]) -> None:
    assert [s.window_closed for s in run(Recorder(), window_s=3.5).stages] == [False, False]


# --- accuracy ---------------------------------------------------------------------------


class Learns(Recorder):
    """Predicts class 0 until it has adapted to a sample above 4, then class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.grown = torch.zeros(1)

    def predict(self, x: Tensor) -> Tensor:
        super().predict(x)
        return torch.cat([0.5 - self.grown, self.grown]).repeat(len(x), 1)

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            if max(sample_numbers(batch.x)) > 4:
                self.grown.fill_(1.0)


def test_online_accuracy_by_hand(run: Callable[..., StreamResult]) -> None:
    stream = run(Learns())
    grown = 0
    for name, stage in zip(NAMES, stream.stages, strict=True):
        hits = 0
        for numbers in (n for w, of, n in Learns.events if (w, of) == ("predict", name)):
            hits += sum(k % 2 == grown for k in numbers)
            grown = grown or int(max(numbers) > 4)
        assert stage.online == pytest.approx(hits / SAMPLES, abs=1e-12)
    assert grown == 1
    # Tests have as many labels of each class: what is predicted makes no difference there.
    assert [(s.before, s.after, s.final) for s in stream.stages] == [(0.5, 0.5, 0.5)] * 2


def test_periodic_has_no_online_accuracy(run: Callable[..., StreamResult]) -> None:
    assert [s.online for s in run(Recorder(), name="periodic").stages] == [None, None]


@given(batch_size=st.integers(1, 12), samples=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_prediction_counts_once_for_any_batch_size(
    make_device: Callable[..., Any], batch_size: int, samples: int, seed: int
) -> None:
    method = Recorder()
    stream = run_stream(
        protocol_config(
            {"name": "online", "batch_size": batch_size, "samples": samples, "window_s": 999}
        ),
        Deployment(
            method, build_stream(TinyStream()),
            make_tracker([make_device("toy")], method.stored), False, seed,
        ),
    )  # fmt: skip
    for name, stage in zip(NAMES, stream.stages, strict=True):
        numbers = flat(stream_of("predict", name))
        assert len(numbers) == min(samples, SAMPLES)
        assert stage.online == pytest.approx(sum(k % 2 for k in numbers) / len(numbers))


# --- predictions that are more than that ------------------------------------------------


class Leaks(Recorder):
    """Learns from the batches it predicts, in one of several ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.mean = torch.zeros(2)
        self.seen: list[Tensor] = []

    def predict(self, x: Tensor) -> Tensor:
        if self.way == "weights":
            self.model.module.weight.add_(0.1)
        elif self.way == "in place":
            self.mean += x.mean(dim=0)
        elif self.way == "anew":
            self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0)
        elif self.way == "keeps":
            self.seen = [*self.seen, x]
        return super().predict(x)


@pytest.mark.parametrize("protocol", ["online", "periodic"])
@pytest.mark.parametrize("way", ["weights", "in place", "anew", "keeps"])
@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_predict_that_changes_state_is_refused(
    run: Callable[..., StreamResult], protocol: str, way: str, batch_size: int
) -> None:
    with pytest.raises(BenchError, match="predict of Leaks changes the method's state"):
        run(Leaks(way), name=protocol, batch_size=batch_size)


class Replaces(Recorder):
    """Puts new tensors in the place of others, and at last one with the identity of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(2)
        self.first = id(self.mean)

    def predict(self, x: Tensor) -> Tensor:
        tried = [torch.ones(2) for _ in range(1000)]
        self.mean = next((t for t in tried if id(t) == self.first), tried[0])
        return x


def test_a_predict_that_replaces_state_is_refused_even_if_an_identity_comes_again() -> None:
    method = Replaces()
    with pytest.raises(BenchError, match="predict of Replaces changes the method's state"):
        Evaluator(method, counting(), 2, make_task("classification"), 2).scores(
            Split(torch.rand(8, 2), torch.zeros(8).long()), "a test split"
        )


# --- reset ------------------------------------------------------------------------------


@pytest.mark.parametrize(("reset", "carried"), [("domain", 0.0), ("never", 3.0)])
def test_a_reset_is_between_domains_and_not_between_batches(
    run: Callable[..., StreamResult], reset: str, carried: float
) -> None:
    class Counting(Recorder):
        counts: EventLog

        def __init__(self) -> None:
            super().__init__()
            self.count = torch.zeros(1)

        def adapt(self, domain: DomainView, window: Window) -> None:
            type(self).counts.append(float(self.count))
            self.count += 1

    Counting.counts = EventLog()
    run(Counting(), reset=reset)
    assert Counting.counts == [0.0, 1.0, 2.0, carried, carried + 1, carried + 2]
