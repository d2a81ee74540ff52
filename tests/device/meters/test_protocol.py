"""The protocol: per call, above idle, with an interval; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.device.meters.errors import MeterError
from bench.device.meters.lock import DeviceLock
from bench.device.meters.power import PowerMeter
from bench.device.meters.protocol import Measurement, estimate, measure
from bench.errors import BenchError


class Device:
    """Draws ``idle_w``, and in ``work``, which takes ``seconds``, the next of ``work_w``."""

    def __init__(self, clock: Any, sampling: Any, lock: Any, seconds: float = 0.5) -> None:
        self.clock, self.seconds, self.calls = clock, seconds, 0
        self.idle_w, self.work_w = 3.0, 8.0
        self.watts = self.idle_w
        self.meter = PowerMeter(
            "toy", "all", lambda: self.watts, ceiling_w=100, sampling=sampling, lock=lock
        )

    def work(self) -> None:
        self.calls += 1
        self.watts = self.work_w
        self.clock.sleep(self.seconds)

    def sleep(self, seconds: float) -> None:
        self.watts = self.idle_w
        self.clock.sleep(seconds)

    def measure(self, work: Callable[[], object] | None = None, **options: Any) -> Measurement:
        return measure(work or self.work, self.meter, clock=self.clock, sleep=self.sleep, **options)


@pytest.fixture
def device(clock: Any, sampling: Any, lock: Any) -> Device:
    return Device(clock, sampling, lock)


# The first reading of a work window still sees rest: the device steps up when the work begins.
STEP_J = (8.0 - 3.0) / 8 / 2
# And the first of an idle window sees rest too, since the device settles before it.


def test_energy_of_a_call_gross_and_above_idle(device: Device) -> None:
    result = device.measure(idle_s=2.0, warmup=2, repeats=3, minimum_s=4.0)
    assert device.calls == 2 + 3 * 8
    assert result.seconds.mean == 0.5
    assert result.idle_w.mean == 3.0
    assert result.gross_j.mean == pytest.approx(8.0 * 0.5 - STEP_J / 8)
    assert result.above_idle_j.mean == pytest.approx((8.0 - 3.0) * 0.5 - STEP_J / 8)
    for name in ("gross_j", "above_idle_j", "seconds", "idle_w"):
        assert getattr(result, name).half_width == pytest.approx(0.0, abs=1e-12)
        assert getattr(result, name).n == 3
    assert [r.calls for r in result.repeats] == [8, 8, 8]
    assert [r.work.seconds for r in result.repeats] == [4.0] * 3
    assert [r.idle.seconds for r in result.repeats] == [2.0] * 3
    assert result.how == "toy (all), 8 samples/s, trapezoidal rule"


def test_intervals_are_those_of_the_raw_values(device: Device) -> None:
    powers: Iterator[float] = iter([7.0, 9.0, 8.5, 10.0])

    def work() -> None:
        device.work_w = next(powers)
        device.idle_w = device.work_w / 4
        device.work()

    device.seconds = 4.0
    result = device.measure(work, idle_s=2.0, warmup=0, repeats=4, minimum_s=1.0)
    raw = [r.work.joules / r.calls for r in result.repeats]
    above = [r.work.joules - r.idle.joules / 2.0 * 4.0 for r in result.repeats]
    for found, values in ((result.gross_j, raw), (result.above_idle_j, above)):
        low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
        assert found.mean - found.half_width == pytest.approx(low)
        assert found.mean + found.half_width == pytest.approx(high)
    assert result.above_idle_j.half_width > 0


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20))
def test_the_estimate_is_the_t_interval(values: list[float]) -> None:
    found = estimate(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    expected = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    assert found.half_width == pytest.approx(expected, abs=1e-9)


def test_three_repeats_by_hand() -> None:
    found = estimate([1.0, 2.0, 3.0])  # t(0.975, 2) = 4.3027, standard error 1 / sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(4.3027 / 3**0.5, abs=1e-4)


def test_a_long_call_is_made_once_a_window(device: Device) -> None:
    device.seconds = 7.0
    result = device.measure(idle_s=1.0, warmup=0, repeats=3, minimum_s=5.0)
    assert [r.calls for r in result.repeats] == [1, 1, 1]
    assert result.gross_j.mean == pytest.approx(56.0 - STEP_J)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"repeats": 2}, "repeats=2 gives no interval; use at least 3"),
        ({"minimum_s": 0.5}, "minimum_s=0.5 is shorter than toy can measure; use at least 1"),
        ({"idle_s": 0.0}, "idle_s=0 is shorter than toy can measure; use at least 1"),
    ],
)
def test_a_protocol_that_asks_for_too_little(
    device: Device, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(BenchError, match=why):
        device.measure(**options)
    assert device.calls == 0


def test_a_sensor_that_never_moves_is_stuck(device: Device) -> None:
    device.work_w = device.idle_w
    with pytest.raises(MeterError, match="reads 3 W throughout, at rest and at work"):
        device.measure()


def test_work_that_fails_leaves_the_meter_free(device: Device) -> None:
    def work() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        device.measure(work, warmup=0)
    assert device.clock.running == 0
    assert device.measure(repeats=3).gross_j.n == 3


def test_nobody_else_measures_from_the_warm_up_to_the_last_window(
    device: Device, lock: DeviceLock
) -> None:
    other = DeviceLock(folder=lock.path.parent, timeout_s=0.1)
    refused = 0

    def work() -> None:
        nonlocal refused
        device.work()
        with pytest.raises(MeterError):
            other.acquire()
        refused += 1

    device.measure(work, repeats=3)
    assert refused == device.calls
    with other:
        pass
