"""Power sensors: the integral by hand, and windows that give a reason instead of a number."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest

from bench.device.meters.errors import MeterError, ReadFailed
from bench.device.meters.lock import DeviceLock
from bench.device.meters.power import PowerMeter, Sampling, trapezoid


def meter(sensor: Any, sampling: Sampling, lock: Any, ceiling_w: float = 150.0) -> PowerMeter:
    return PowerMeter(
        "sensor", "all of it", sensor, ceiling_w=ceiling_w, sampling=sampling, lock=lock
    )


def refusal(power: PowerMeter) -> str:
    with pytest.raises(MeterError) as caught:
        power.end()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_trapezoidal_rule_by_hand() -> None:
    # 1 s from 2 W to 4 W, then 3 s from 4 W to 10 W
    assert trapezoid([5.0, 6.0, 9.0], [2.0, 4.0, 10.0]) == 3.0 + 21.0


def test_five_watts_for_two_seconds_are_ten_joules(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 5.0, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    energy = power.end()
    assert (energy.joules, energy.seconds, energy.power_w) == (10.0, 2.0, 5.0)
    # at the beginning, 16 ticks of which the last falls on the end, at the end
    assert energy.samples == 18
    assert energy.watts == (5.0,) * 18
    assert energy.how == "sensor (all of it), 8 samples/s, trapezoidal rule"
    assert clock.running == 0


def test_a_ramp_is_integrated_exactly(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 3.0 * (clock() - 1000.0) + 1.0, sampling, lock)
    power.begin()
    clock.sleep(4.0)
    assert power.end().joules == pytest.approx(3.0 * 4.0**2 / 2 + 4.0, rel=1e-12)


def test_a_window_that_ends_between_two_ticks_counts_to_its_end(
    clock: Any, sampling: Any, lock: Any
) -> None:
    power = meter(lambda: 7.0, sampling, lock)
    power.begin()
    clock.sleep(1.3)
    energy = power.end()
    assert energy.seconds == pytest.approx(1.3)
    assert energy.joules == pytest.approx(9.1)


def test_windows_follow_each_other_and_each_begins_anew(
    clock: Any, sampling: Any, lock: Any
) -> None:
    watts = 4.0
    power = meter(lambda: watts, sampling, lock)
    joules = []
    for watts in (4.0, 6.0):  # noqa: B007 - the sensor reads it
        power.begin()
        clock.sleep(2.0)
        joules.append(power.end().joules)
    assert joules == [8.0, 12.0]


def test_a_short_window_is_refused(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 5.0, sampling, lock)
    power.begin()
    clock.sleep(0.5)
    assert refusal(power) == (
        "sensor: a window of 0.5 s is too short, at least 1 s are needed; repeat the work within "
        "the window"
    )


def test_too_few_readings_are_refused(clock: Any, lock: Any) -> None:
    slow = Sampling(rate_hz=2.0, clock=clock, ticker=clock.ticker)
    power = meter(lambda: 5.0, slow, lock)
    power.begin()
    clock.sleep(1.75)
    assert "5 readings in 1.75 s, at least 8 are needed" in refusal(power)


def test_a_failed_reading_is_bridged(clock: Any, sampling: Any, lock: Any) -> None:
    def sensor() -> float:
        if 1000.3 < clock() < 1000.6:
            raise ReadFailed("the bus is busy")
        return 5.0

    power = meter(sensor, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    energy = power.end()
    assert (energy.joules, energy.samples) == (10.0, 16)


def test_a_long_gap_is_refused_with_what_failed(clock: Any, sampling: Any, lock: Any) -> None:
    def sensor() -> float:
        if 1000.3 < clock() < 1002.6:
            raise ReadFailed("the bus is busy")
        return 5.0

    power = meter(sensor, sampling, lock)
    power.begin()
    clock.sleep(4.0)
    text = refusal(power)
    assert "no reading for 2.38 s within the window" in text
    assert text.endswith("(the bus is busy)")


def test_a_sensor_that_is_gone_at_the_end_gives_its_reason(
    clock: Any, sampling: Any, lock: Any
) -> None:
    def sensor() -> float:
        if clock() > 1001.0:
            raise ReadFailed("the bus is busy")
        return 5.0

    power = meter(sensor, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    assert refusal(power) == "the bus is busy"
    assert clock.running == 0
    with DeviceLock(folder=lock.path.parent):
        pass


@pytest.mark.parametrize(
    ("watts", "why"),
    [
        (0.0, "reads 0 W; a running device draws more than 0"),
        (-2.5, "reads -2.5 W; a running device draws more than 0"),
        (math.nan, "reads nan W"),
        (5000.0, "reads 5000 W, above 150 W, which is 10 times what the device can draw"),
    ],
)
def test_nonsense_refuses_the_meter_and_the_window(
    clock: Any, sampling: Any, lock: Any, watts: float, why: str
) -> None:
    with pytest.raises(MeterError, match=why):
        meter(lambda: watts, sampling, lock)
    power = meter(lambda: 5.0 if clock() < 1000.9 or clock() > 1001.1 else watts, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    assert why in refusal(power)


def test_a_window_is_open_or_not(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 5.0, sampling, lock)
    assert refusal(power) == "sensor: no window is open; begin one first"
    power.begin()
    with pytest.raises(MeterError, match="a window is open already"):
        power.begin()
    clock.sleep(2.0)
    assert power.end().joules == 10.0


def test_a_cancelled_window_leaves_nothing_behind(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 5.0, sampling, lock)
    power.cancel()  # nothing is open: nothing happens
    power.begin()
    power.cancel()
    assert clock.running == 0
    with DeviceLock(folder=lock.path.parent):
        pass
    power.begin()
    clock.sleep(2.0)
    assert power.end().joules == 10.0


def test_a_window_that_cannot_begin_gives_the_device_back(
    clock: Any, sampling: Any, lock: Any
) -> None:
    power = meter(lambda: 5.0 if clock() != 1001.0 else 0.0, sampling, lock)
    clock.sleep(1.0)
    with pytest.raises(MeterError, match="reads 0 W"):
        power.begin()
    with DeviceLock(folder=lock.path.parent):
        pass
    clock.sleep(1.0)
    power.begin()
    clock.sleep(2.0)
    assert power.end().joules == 10.0


def test_the_thread_samples_at_its_rate_and_ends(lock: Any) -> None:
    power = meter(
        lambda: 5.0, Sampling(rate_hz=100.0, minimum_s=0.2, minimum_samples=3, gap_s=30.0), lock
    )
    before = threading.active_count()
    power.begin()
    assert threading.active_count() == before + 1
    time.sleep(0.3)
    energy = power.end()
    assert threading.active_count() == before
    assert energy.joules == pytest.approx(5.0 * energy.seconds)
    assert energy.seconds >= 0.3
    # never faster than asked, whatever else the machine does
    assert 3 <= energy.samples <= 100 * energy.seconds + 3
