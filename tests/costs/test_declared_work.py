"""Steps that declare their sizes cost what they would if each were counted, and few are counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.costs.device_profile import load_device
from bench.costs.modelled import ModelledTracker
from bench.costs.step_tracer import StepTracer
from bench.costs.tracker import ChargedStep, StepObserver
from bench.errors import BenchError
from bench.run.window import Window

BATCH = 16


class Charged(StepObserver):
    def __init__(self) -> None:
        self.steps: list[ChargedStep] = []

    def on_step(self, step: ChargedStep) -> None:
        self.steps.append(step)


class Selecting:
    """Trains on the first n samples of a batch, then on the first m of those, as SAR does."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 4), nn.Softmax(1)
        )
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)

    def step(self, x: Tensor, n: int, m: int, declare: Callable[[int], None]) -> None:
        with torch.no_grad():
            self.net(x)
        declare(n)
        if not n:
            return
        loss = self.net(x[:n]).square().mean()
        self.optimizer.zero_grad()
        declare(m)
        if not m:
            loss.exp()
            return
        (loss + self.net(x[:m].clone()).sum()).backward()
        self.optimizer.step()


def adapt(sizes: list[tuple[int, int]], declares: bool) -> tuple[ModelledTracker, Charged, int]:
    """The tracker, what it charged, and how many steps were counted."""
    made, charged = 0, Charged()

    class Counted(StepTracer):
        def __enter__(self) -> StepTracer:
            nonlocal made
            made += 1
            return super().__enter__()

    method = Selecting()
    tracker = ModelledTracker([load_device("xavier-nx")], lambda: vars(method), [charged])
    view = DomainView("d", torch.ones(BATCH * len(sizes), 6), None, BATCH, torch.Generator())
    with pytest.MonkeyPatch.context() as patch, Window(tracker, 1e9) as window:
        patch.setattr("bench.costs.modelled.StepTracer", Counted)
        steps = window.steps(view.batches(), data_dependent=True)
        for batch, (n, m) in zip(steps, [*sizes, (0, 0)], strict=False):
            method.step(batch.x, n, m, window.declare if declares else lambda _: None)
    return tracker, charged, made


VARIED = [(5, 2), (9, 3), (4, 4), (16, 7), (8, 5), (12, 1), (1, 1), (16, 16), (3, 2), (15, 9)]


@pytest.mark.parametrize(
    "sizes",
    [
        VARIED * 2,
        [*VARIED, (0, 0), (7, 0), (16, 3), (0, 0), (2, 1)],
        [(0, 0), (0, 0), (4, 0), (2, 0), *VARIED, (11, 0), (6, 6)],
    ],
)
def test_declared_steps_cost_what_counting_each_would_give(sizes: list[tuple[int, int]]) -> None:
    each, its, all_of_them = adapt(sizes, declares=False)
    some, ours, few = adapt(sizes, declares=True)
    assert all_of_them == len(sizes)
    assert few < len(sizes)
    assert (some.flops, some.bytes, some.launches) == (each.flops, each.bytes, each.launches)
    assert [s.seconds for s in ours.steps] == [s.seconds for s in its.steps]
    for mine, right in zip(ours.steps, its.steps, strict=True):
        assert mine.trace is not None
        assert right.trace is not None
        assert mine.trace.operations == right.trace.operations
        assert mine.trace.details == right.trace.details
    assert some.devices[0].window == each.devices[0].window
    assert some.devices[0].peak_bytes == each.devices[0].peak_bytes


def test_a_line_is_counted_until_it_holds_and_then_no_more() -> None:
    several = [(n, m) for n, m in VARIED if m > 1]
    assert adapt(several * 5, declares=True)[2] <= 6


def test_sections_that_declare_a_size_and_run_no_operator_cost_nothing() -> None:
    tracker = ModelledTracker([load_device("xavier-nx")], list)
    with Window(tracker, 1e9) as window:
        for _ in range(4):
            with window.section("look"):
                window.declare(0)
    assert tracker.counts["look"] == 4
    assert tracker.flops == tracker.devices[0].window.time_s == 0


def test_an_optimizer_that_loses_its_state_is_counted_again() -> None:
    """As SAR, which sets the model back: the next step makes the state anew."""
    method = Selecting()

    def run(declares: bool) -> ModelledTracker:
        nonlocal method
        method = Selecting()
        tracker = ModelledTracker([load_device("xavier-nx")], lambda: vars(method))
        view = DomainView("d", torch.ones(BATCH * 20, 6), None, BATCH, torch.Generator())
        with Window(tracker, 1e9) as window:
            steps = window.steps(view.batches(), data_dependent=True)
            for number, (batch, (n, m)) in enumerate(zip(steps, VARIED * 2, strict=False)):
                method.step(batch.x, n, m, window.declare if declares else lambda _: None)
                if number == 12:
                    method.optimizer.state.clear()
        return tracker

    assert run(declares=True).flops == run(declares=False).flops


def test_a_step_that_stops_declaring_halfway_is_refused() -> None:
    method = Selecting()
    tracker = ModelledTracker([load_device("xavier-nx")], lambda: vars(method))
    view = DomainView("d", torch.ones(BATCH * 20, 6), None, BATCH, torch.Generator())
    with pytest.raises(BenchError, match="same sizes in the same order"):  # noqa: PT012, SIM117
        with Window(tracker, 1e9) as window:
            steps = window.steps(view.batches(), data_dependent=True)
            for number, (batch, (n, m)) in enumerate(zip(steps, VARIED * 2, strict=False)):
                declare = window.declare if number < 15 else (lambda _: None)
                method.step(batch.x, n, m, declare)


def test_a_size_outside_a_step_is_refused() -> None:
    method = Selecting()
    tracker = ModelledTracker([load_device("xavier-nx")], lambda: vars(method))
    with pytest.raises(BenchError, match="outside a step"):
        tracker.declare(3)
