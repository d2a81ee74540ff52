"""Reading data inside a step: neither timed on this machine nor taken for the method's work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts.data import DomainView, LazyInputs, SampleType
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.io.fetch_clock import FETCHING, FetchClock, wall_clock
from bench.meters.base import Unavailable
from bench.run.window import Window

READING_S = 0.15


def burn() -> None:
    end = time.thread_time() + READING_S
    while time.thread_time() < end:
        sum(range(1000))


class Files(LazyInputs):
    """Samples that take long to read, by ``how``."""

    def __init__(self, how: Callable[[], None]) -> None:
        super().__init__(torch.arange(8))
        self.how = how

    def read(self, positions: Tensor) -> Tensor:
        self.how()
        return torch.ones(len(positions), 200)

    def names(self, positions: Tensor) -> list[str]:
        return [str(i) for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((200,), torch.float32)}


def run(device: str, how: Callable[[], None]) -> CostTracker:
    """Four steps, each of which also reads a batch of other data, as alignment to the source."""
    torch.set_num_threads(1)
    tracker = make_tracker([load_device(device)], list, Unavailable("no meter in a test", {}))
    source = DomainView("source", Files(how), None, 2, torch.Generator()).infinite()
    target = DomainView("target", torch.ones(4, 200), None, 1, torch.Generator())
    weight = torch.ones(200, 200)
    tracker.start()
    with Window(tracker, 1e9) as window:
        for batch in window.steps(target.batches()):
            for _ in range(2):
                weight = weight * 0.5 + (batch.x.t() @ next(source).x[:1])
    tracker.inference(1, lambda: weight @ weight)
    tracker.finish()
    return tracker


def test_this_machine_is_not_charged_for_it() -> None:
    before = FETCHING.wall_s
    tracker = run("host", lambda: time.sleep(READING_S))
    assert FETCHING.wall_s - before >= 8 * READING_S
    (device,) = tracker.devices
    assert device.window.steps == 4
    assert device.window.time_s < READING_S


def test_a_modelled_step_is_no_lower_bound_because_of_it() -> None:
    assert run("xavier-nx", burn).uncounted == set()


def test_the_clock_stands_still_while_data_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FetchClock()
    monkeypatch.setattr("bench.io.fetch_clock.FETCHING", clock)
    begun = wall_clock()
    with clock.running(), clock.running():
        time.sleep(0.2)
    assert 0.2 <= clock.wall_s < 0.35  # once, though there were two blocks
    assert wall_clock() - begun < 0.1


def test_an_error_while_reading_leaves_the_clock_right() -> None:
    clock = FetchClock()
    with pytest.raises(OSError, match="gone"), clock.running():
        raise OSError("gone")
    before: Any = clock.wall_s
    with clock.running():
        time.sleep(0.05)
    assert clock.wall_s - before >= 0.05
