"""Seconds, joules and bytes of a counted step, checked by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.costs.pricing import step_cost
from bench.costs.step_tracer import StepTrace

BOARD = {
    "launch": 2.0, "flops": 1000.0, "bandwidth": 100.0, "idle": 5.0, "per_flop": 0.25,
    "per_byte": 0.5, "reach": {"matmul": (0.5, 0.25), "elementwise": (0.1, 0.8)},
}  # fmt: skip


def trace(*operations: tuple[Any, ...], peak: int = 0) -> StepTrace:
    return StepTrace(Counter(operations), peak_bytes=peak)


@pytest.mark.parametrize(
    ("operation", "seconds"),
    [
        (("matmul", "float32", 10.0, 10.0), 2.0),  # launch: 0.02 s and 0.4 s are shorter
        (("matmul", "float32", 5000.0, 10.0), 10.0),  # 5000 / (1000 x 0.5)
        (("matmul", "float32", 10.0, 300.0), 12.0),  # 300 / (100 x 0.25)
        (("elementwise", "float32", 500.0, 240.0), 5.0),  # 500 / (1000 x 0.1) beats 240 / 80
        (("elementwise", "float32", 200.0, 240.0), 3.0),
        (("reduction", "float32", 0.0, 0.0), 2.0),
    ],
)
def test_an_operator_takes_the_longest_of_launch_arithmetic_and_traffic(
    make_device: Callable[..., Any], operation: tuple[Any, ...], seconds: float
) -> None:
    cost = step_cost(trace(operation), make_device(**BOARD))
    assert cost.time_s == pytest.approx(seconds, rel=1e-12)
    joules = 5.0 * seconds + 0.25 * operation[2] + 0.5 * operation[3]
    assert cost.energy_j == pytest.approx(joules, rel=1e-12)


def test_a_step_is_the_sum_of_its_operators(make_device: Callable[..., Any]) -> None:
    step = StepTrace(
        Counter(
            {
                ("matmul", "float32", 5000.0, 10.0): 3,
                ("elementwise", "float32", 1.0, 240.0): 2,
                ("copy", "float32", 0.0, 8.0): 4,
            }
        ),
        peak_bytes=777,
    )
    cost = step_cost(step, make_device(**BOARD))
    assert cost.time_s == pytest.approx(3 * 10.0 + 2 * 3.0 + 4 * 2.0)
    arithmetic, traffic = 3 * 5000.0 + 2 * 1.0, 3 * 10.0 + 2 * 240.0 + 4 * 8.0
    assert cost.energy_j == pytest.approx(5.0 * 44.0 + 0.25 * arithmetic + 0.5 * traffic)
    assert cost.peak_bytes == 777
    assert (step.flops, step.bytes, step.launches) == (arithmetic, traffic, 9)


def test_a_processor_that_dispatches_what_it_computes_is_busy_all_the_time(
    make_device: Callable[..., Any],
) -> None:
    device = make_device(**BOARD)
    busy = device.model_copy(update={"dispatch": "added"})
    step = trace(("elementwise", "float32", 1.0, 80.0), ("matmul", "float32", 1e4, 8.0))
    cost = step_cost(step, busy)
    assert cost.energy_j == device.power_budget.value * cost.time_s
    assert cost.time_s > step_cost(step, device).time_s


def test_an_empty_step_costs_nothing(make_device: Callable[..., Any]) -> None:
    cost = step_cost(trace(), make_device(**BOARD))
    assert (cost.time_s, cost.energy_j, cost.peak_bytes) == (0.0, 0.0, 0)


def test_a_data_type_has_its_own_peak_and_energy_and_else_those_of_float32(
    make_device: Callable[..., Any],
) -> None:
    device = make_device(**BOARD, more_flops={"float16": 4000.0}, more_energy={"float16": 0.125})
    half = step_cost(trace(("matmul", "float16", 20000.0, 0.0)), device)
    assert half.time_s == pytest.approx(10.0)
    assert half.energy_j == pytest.approx(5.0 * 10.0 + 0.125 * 20000.0)
    other = step_cost(trace(("matmul", "bfloat16", 20000.0, 0.0)), device)
    assert other.time_s == pytest.approx(40.0)
    assert other.energy_j == pytest.approx(5.0 * 40.0 + 0.25 * 20000.0)


@given(
    flops=st.floats(0, 1e9), size=st.floats(0, 1e9), launch=st.floats(1e-6, 1e3),
    faster=st.floats(1.0, 10.0),
)  # fmt: skip
def test_a_better_device_is_never_slower(
    make_device: Callable[..., Any], flops: float, size: float, launch: float, faster: float
) -> None:
    step = trace(("matmul", "float32", flops, size))
    slow = make_device(launch=launch, flops=1e6, bandwidth=1e5)
    fast = make_device(launch=launch / faster, flops=1e6 * faster, bandwidth=1e5 * faster)
    assert step_cost(step, fast).time_s <= step_cost(step, slow).time_s
