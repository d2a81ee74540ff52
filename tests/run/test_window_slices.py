"""A window's clock, and parts of a window: with steps of one second on a modelled device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import registry
from bench.contracts.data import Batch, DomainView
from bench.costs.factory import make_tracker
from bench.errors import BenchError
from bench.run.window import Window
from bench.study.plan import Plan
from bench.study.suite import Suite

Device = Callable[..., Any]


def batches(n: int = 100) -> Iterator[Batch]:
    view = DomainView("d", torch.rand(n * 2, 3), None, 2, torch.Generator())
    return view.batches(shuffle=False)


def spend(window: Window, n: int = 100, kind: str = "adapt") -> int:
    """Steps of one operator, one second on the toy device; how many there were."""
    steps = 0
    for batch in window.steps(batches(n), kind):
        batch.x + 1.0
        steps += 1
    return steps


def window_of(seconds: float, *devices: Any) -> Window:
    return Window(make_tracker(list(devices), lambda: ()), seconds)


def test_the_clock_shows_what_was_charged_and_starts_anew_in_each_window(
    make_device: Device,
) -> None:
    tracker = make_tracker([make_device()], lambda: ())
    with Window(tracker, 10.0) as window:
        assert window.spent_s == 0.0
        spend(window, 3)
        assert window.spent_s == 3.0
        with window.section("more"):
            torch.ones(1) * 2.0  # two operators: the ones, and their product
            assert window.spent_s == 3.0  # still open
        assert window.spent_s == 5.0
    with Window(tracker, 10.0) as window:
        assert window.spent_s == 0.0


def test_equal_devices_share_a_clock_and_different_ones_have_none(make_device: Device) -> None:
    twins = window_of(10.0, make_device("a"), make_device("b"))
    spend(twins, 2)
    assert twins.spent_s == 2.0
    with twins.time_slice(3.0):
        assert spend(twins) == 3
    window = window_of(10.0, make_device("fast"), make_device("slow", launch=2.0))
    assert window.spent_s == 0.0
    spend(window, 2)
    with pytest.raises(BenchError, match=r"fast, slow.*uses_device_clock = True"):
        _ = window.spent_s
    with pytest.raises(BenchError, match="uses_device_clock"), window.time_slice(1.0):
        pass


def test_a_part_admits_what_fits_it_and_leaves_the_window_open(make_device: Device) -> None:
    window = window_of(10.0, make_device())
    with window.time_slice(3.5):
        assert spend(window) == 3
        assert spend(window) == 0
        assert not window.closed
    assert window.spent_s == 3.0
    with window.time_slice(2.0):
        assert spend(window) == 2
    assert spend(window) == 5
    assert window.closed
    assert window.spent_s == 10.0


def test_the_window_ends_a_part_that_is_longer_than_what_is_left(make_device: Device) -> None:
    window = window_of(4.0, make_device())
    spend(window, 1)
    with window.time_slice(100.0):
        assert spend(window) == 3
    assert window.closed
    with window.time_slice(100.0):
        assert spend(window) == 0


def test_an_inner_part_ends_with_the_outer_one(make_device: Device) -> None:
    window = window_of(10.0, make_device())
    spend(window, 1)
    with window.time_slice(4.0):
        with window.time_slice(1.0):
            assert spend(window) == 1
        with window.time_slice(50.0):
            assert spend(window) == 3
        assert spend(window) == 0
    assert spend(window) == 5


def test_a_part_ends_also_where_an_exception_leaves_it(make_device: Device) -> None:
    window = window_of(10.0, make_device())
    with pytest.raises(ZeroDivisionError), window.time_slice(1.0):
        raise ZeroDivisionError
    assert spend(window) == 10


def test_a_step_of_unknown_cost_and_a_section_may_end_past_the_part(make_device: Device) -> None:
    window = window_of(10.0, make_device())
    with window.time_slice(0.5):
        assert spend(window) == 1  # nobody knew that it takes a second
        assert spend(window) == 0
        with window.section("more"):
            torch.ones(1)
    assert window.spent_s == 2.0
    with window.time_slice(0.0):
        assert spend(window, kind="another") == 0
    assert not window.closed


@pytest.mark.parametrize("seconds", [-1.0, float("nan")])
def test_a_part_of_no_length_is_refused(make_device: Device, seconds: float) -> None:
    window = window_of(10.0, make_device())
    with pytest.raises(BenchError, match="0 or more"), window.time_slice(seconds):
        pass


@pytest.mark.parametrize(("method", "courses"), [("tent", 1), ("apps-edgeta", 2)])
def test_a_method_that_reads_the_clock_runs_once_for_each_device(
    make_cell: Callable[..., Any], method: str, courses: int
) -> None:
    assert registry.load("method", method).uses_device_clock is (courses > 1)
    devices = ["xavier-nx", "jetson-tx2"]
    suite = Suite.model_validate(
        {
            "name": "s", "description": "d", "stream": "digits-shift", "model": "digits-vit",
            "methods": [method], "seeds": 1, "devices": devices,
        }
    )  # fmt: skip
    component = make_cell().method.model_copy(update={"name": method})
    cells = [make_cell(method=component, device=d, device_digest=d) for d in devices]
    assert len({cell.training_key for cell in cells}) == 1
    plan = Plan(suite, Path("s.yaml"), cells, {}, cells)
    assert [len(group) for group in plan.shared_runs()] == [2 // courses] * courses
