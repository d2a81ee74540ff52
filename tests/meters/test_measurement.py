"""The protocol: per call, above idle, with an interval; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.errors import BenchError
from bench.meters.base import DeviceLock, MeterError
from bench.meters.measurement import Measurement, estimate, measure
from bench.meters.power import PowerMeter, Sampling


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


def test_energy_of_a_call_gross_and_above_idle(device: Device) -> None:
    result = device.measure(idle_s=2.0, warmup=2, repeats=3, minimum_s=4.0)
    assert device.calls == 2 + 3 * 8
    assert result.seconds.mean == 0.5
    assert result.idle_w.mean == pytest.approx(3.0)
    assert result.gross_j.mean == pytest.approx(8.0 * 0.5)
    assert result.above_idle_j.mean == pytest.approx((8.0 - 3.0) * 0.5)
    for name in ("gross_j", "above_idle_j", "seconds", "idle_w"):
        assert getattr(result, name).half_width == pytest.approx(0.0, abs=1e-12)
        assert getattr(result, name).n == 3
    assert [r.calls for r in result.repeats] == [8, 8, 8]
    assert [r.work.seconds for r in result.repeats] == [4.0] * 3
    assert [r.idle.seconds for r in result.repeats] == [2.0] * 3
    assert result.how == "toy (all), 8 samples/s at random times, trapezoidal rule"


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


class Periodic:
    """Rests at 5 W; each call of the work draws 15 W for 40 % of its ``period_s``, then 7 W."""

    def __init__(self, clock: Any, lock: Any, period_s: float, seed: int) -> None:
        self.clock, self.period_s = clock, period_s
        self.began: float | None = None
        self.call_j = (15.0 * 0.4 + 7.0 * 0.6) * period_s
        self.meter = PowerMeter(
            "toy",
            "all",
            self.watts,
            ceiling_w=100,
            sampling=Sampling(seed=seed, clock=clock, ticker=clock.ticker),
            lock=lock,
        )

    def watts(self) -> float:
        if self.began is None:
            return 5.0
        return 15.0 if self.clock() - self.began < 0.4 * self.period_s else 7.0

    def work(self) -> None:
        self.began = self.clock()
        self.clock.sleep(self.period_s)

    def sleep(self, seconds: float) -> None:
        self.began = None
        self.clock.sleep(seconds)


@pytest.mark.parametrize("window_s", [1.0, 5.0])
@pytest.mark.parametrize("period_s", [0.0331, 0.02, 0.1])  # near, at and above the rate's periods
def test_work_that_repeats_itself_is_measured_without_bias(
    clock: Any, lock: Any, window_s: float, period_s: float
) -> None:
    results = []
    for seed in range(20):
        toy = Periodic(clock, lock, period_s, seed)
        found = measure(
            toy.work,
            toy.meter,
            idle_s=window_s,
            minimum_s=window_s,
            settle_s=0.5,
            clock=clock,
            sleep=toy.sleep,
        )
        results.append(found.gross_j)
    means = np.array([r.mean for r in results]) / toy.call_j
    widths = np.array([r.half_width for r in results]) / toy.call_j
    # at even times, 10 a second, these were up to 1.41, with a width of 0 that covered none of 20
    assert np.mean(means) == pytest.approx(1.0, abs=0.01)
    assert np.abs(means - 1.0).max() < (0.03 if window_s == 5.0 else 0.06)
    assert np.sum(np.abs(means - 1.0) <= widths) >= 17  # 19 are expected


def test_windows_are_as_long_as_the_meter_needs(device: Device) -> None:
    result = device.measure(repeats=3)
    assert [(r.idle.seconds, r.work.seconds) for r in result.repeats] == [(5.0, 5.0)] * 3
    device.meter.minimum_s = 9.0
    result = device.measure(repeats=3)
    assert [(r.idle.seconds, r.work.seconds) for r in result.repeats] == [(9.0, 9.0)] * 3


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
    assert result.gross_j.mean == pytest.approx(56.0)


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
