"""Work that a section repeats: counted twice, charged each time, as if all had been counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack

from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.modelled import ModelledTracker
from bench.costs.repeated_work import RepeatedWork
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.errors import BenchError
from bench.run.window import Window

Pass = Callable[[Tensor], None]


@pytest.fixture(autouse=True)
def _clean_stack() -> Iterator[None]:
    yield
    assert _get_current_dispatch_mode_stack() == []


def make_pass() -> tuple[nn.Module, Pass]:
    """A forward and backward pass and an optimizer's step, whose first time differs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def once(x: Tensor) -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    return net, once


def traced(sizes: list[int], known: bool) -> tuple[StepTrace, nn.Module]:
    net, once = make_pass()
    torch.manual_seed(1)
    with StepTracer(list(net.parameters())) as tracer:
        work = RepeatedWork(tracer)
        for size in sizes:
            x = torch.rand(size, 4)
            with work.once(size) if known else nullcontext():
                once(x)
        net(torch.rand(2, 4))  # what follows is counted
    return tracer.trace, net


@pytest.mark.parametrize("sizes", [[1] * 5, [2, 1, 1, 2, 1, 2, 2, 1], [3]])
def test_counts_memory_and_weights_are_those_of_counting_every_time(sizes: list[int]) -> None:
    counted, one = traced(sizes, known=False)
    known, other = traced(sizes, known=True)
    assert known == counted
    assert known.flops > 0
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_from_the_third_time_on_no_operator_is_counted() -> None:
    trace, _ = traced([1] * 50, known=True)
    few, _ = traced([1] * 2, known=True)
    assert few.spared_s == 0
    assert trace.spared_s > 10 * trace.counting_s / 50
    assert trace.operators_s > few.operators_s


class Counting(TorchDispatchMode):
    """A mode of somebody else."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **kwargs or {})


def test_under_another_mode_everything_is_counted_and_seen_by_it() -> None:
    x = torch.rand(3)
    with StepTracer() as tracer, Counting() as other:
        work = RepeatedWork(tracer)
        for _ in range(6):
            with work.once("add"):
                x + 1.0
    assert other.calls == 6
    assert tracer.trace.launches == 6
    assert tracer.trace.spared_s == 0


def test_an_exception_in_known_work_leaves_the_tracer_counting() -> None:
    x = torch.rand(3)
    with StepTracer() as tracer:
        work = RepeatedWork(tracer)
        for _ in range(2):
            with work.once("add"):
                x + 1.0
        with pytest.raises(ZeroDivisionError), work.once("add"):
            x + 1 / 0
        x * 2.0
    assert tracer.trace.launches == 3


def test_a_section_is_charged_for_every_pass() -> None:
    def seconds(same: bool) -> tuple[float, float, int]:
        net, once = make_pass()
        tracker = make_tracker([load_device("xavier-nx")], lambda: list(net.parameters()))
        assert isinstance(tracker, ModelledTracker)
        with Window(tracker, 60.0, model=lambda: net) as window, window.section("importance"):
            for _ in range(20):
                x = torch.ones(1, 4)
                with window.same_work(x) if same else nullcontext():
                    once(x)
        device = tracker.devices[0]
        return device.window.time_s, device.peak_bytes, int(tracker.flops)

    assert seconds(same=True) == seconds(same=False)


def test_an_optimizers_step_in_known_work_is_still_allowed_and_watched() -> None:
    steps: list[int] = []
    hook = register_optimizer_step_pre_hook(lambda *_: steps.append(1))
    try:
        traced([1] * 5, known=True)
    finally:
        hook.remove()
    assert len(steps) == 5


def test_outside_of_a_section_it_is_refused() -> None:
    tracker = make_tracker([load_device("xavier-nx")], tuple)
    with Window(tracker, 60.0) as window, pytest.raises(BenchError, match="charged to nobody"):
        window.same_work(torch.rand(1, 4))
