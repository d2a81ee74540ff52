"""Power sensors: the integral by hand, and windows that give a reason instead of a number."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from typing import Any

import numpy as np
import pytest

from bench.meters.base import DeviceLock, MeterError, ReadFailed
from bench.meters.power import PowerMeter, Sampling, jittered, trapezoid, within


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


def test_the_ends_of_a_window_by_hand() -> None:
    # 2 W held for 1 s, 1 s to 4 W, 3 s to 10 W, 10 W held for 2 s
    assert within(4.0, 11.0, [5.0, 6.0, 9.0], [2.0, 4.0, 10.0]) == 2.0 + 3.0 + 21.0 + 20.0
    assert within(4.0, 6.0, [5.5], [3.0]) == 6.0


def test_each_interval_has_one_time_anywhere_in_it() -> None:
    times = np.array(list(itertools.islice(jittered(0.02, random.Random(3)), 5000)))
    assert (np.floor(times / 0.02) == np.arange(5000)).all()
    histogram = np.histogram(times / 0.02 % 1.0, bins=10, range=(0, 1))[0]
    assert histogram.min() > 400  # 500, with a standard deviation of 21


def test_work_that_begins_with_the_window_counts_from_its_beginning(clock: Any, lock: Any) -> None:
    watts = 3.0
    sampling = Sampling(rate_hz=10.0, clock=clock, ticker=clock.ticker)
    power = meter(lambda: watts, sampling, lock)
    power.begin()
    watts = 8.0
    clock.sleep(1.0)
    watts = 3.0  # the work is over before the window is
    energy = power.end()
    assert energy.joules == pytest.approx(8.0)  # by its first and last reading: 7.75 or 7.5
    assert set(energy.watts) == {8.0}


def test_five_watts_for_two_seconds_are_ten_joules(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 5.0, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    energy = power.end()
    assert (energy.joules, energy.seconds) == (pytest.approx(10.0), 2.0)
    assert energy.watts == (5.0,) * 16
    assert energy.samples == 16
    assert energy.how == "sensor (all of it), 8 samples/s at random times, trapezoidal rule"
    assert clock.running == 0


def test_a_ramp_is_integrated_up_to_its_ends(clock: Any, sampling: Any, lock: Any) -> None:
    power = meter(lambda: 3.0 * (clock() - 1000.0) + 1.0, sampling, lock)
    power.begin()
    clock.sleep(4.0)
    assert power.end().joules == pytest.approx(3.0 * 4.0**2 / 2 + 4.0, abs=3.0 / 8**2 / 2)


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
    assert joules == pytest.approx([8.0, 12.0])


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
    assert "4 readings in 1.75 s, at least 8 are needed" in refusal(power)


def test_a_failed_reading_is_bridged(clock: Any, sampling: Any, lock: Any) -> None:
    def sensor() -> float:
        if 1000.3 < clock() < 1000.6:
            raise ReadFailed("the bus is busy")
        return 5.0

    power = meter(sensor, sampling, lock)
    power.begin()
    clock.sleep(2.0)
    energy = power.end()
    assert (energy.joules, energy.samples) == (pytest.approx(10.0), 13)


def test_a_long_gap_is_refused_with_what_failed(clock: Any, sampling: Any, lock: Any) -> None:
    def sensor() -> float:
        if 1000.3 < clock() < 1002.6:
            raise ReadFailed("the bus is busy")
        return 5.0

    power = meter(sensor, sampling, lock)
    power.begin()
    clock.sleep(4.0)
    text = refusal(power)
    assert "no reading for 2.5 s within the window" in text
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
    text = refusal(power)
    assert "no reading for 1.09 s within the window" in text  # up to its end
    assert text.endswith("(the bus is busy)")
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
    assert power.end().joules == pytest.approx(10.0)


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
    assert power.end().joules == pytest.approx(10.0)


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
    assert power.end().joules == pytest.approx(10.0)


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
    assert 3 <= energy.samples <= 100 * energy.seconds + 1


def test_a_slow_sensor_leaves_times_out(lock: Any) -> None:
    began = []

    def sensor() -> float:
        began.append(time.monotonic())
        time.sleep(0.025)
        return 5.0

    sampling = Sampling(rate_hz=100.0, minimum_s=0.2, minimum_samples=3, gap_s=30.0)
    power = meter(sensor, sampling, lock)
    power.begin()
    time.sleep(0.5)
    energy = power.end()
    assert 3 <= energy.samples <= energy.seconds / 0.025 + 1
    assert np.diff(began).min() >= 0.025
    assert energy.joules == pytest.approx(5.0 * energy.seconds)
