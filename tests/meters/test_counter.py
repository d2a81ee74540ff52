"""Energy counters: differences, turns of the counter, and counters that cannot be believed."""

from __future__ import annotations

from typing import Any

import pytest

from bench.meters.base import MeterError, ReadFailed
from bench.meters.counter import Counter, CounterMeter


class Values:
    """Counters that show what the test sets."""

    def __init__(self, **joules: float) -> None:
        self.__dict__.update(joules)

    def counters(self, range_j: float | None) -> list[Counter]:
        return [Counter(n, lambda n=n: getattr(self, n), range_j) for n in vars(self)]


class Running:
    """A counter of ``range_j`` joules that runs at ``watts`` and is 0 again at ``reset_s``."""

    def __init__(self, clock: Any, watts: float, range_j: float, first_j: float = 0.0) -> None:
        self.clock, self.watts, self.range_j = clock, watts, range_j
        self.first_j, self.began = first_j, clock()
        self.reset_s: float | None = None
        self.fails_s = (0.0, 0.0)

    def read(self) -> float:
        now = self.clock()
        if self.fails_s[0] < now < self.fails_s[1]:
            raise ReadFailed("no")
        if self.reset_s is not None and now >= self.reset_s:
            return (now - self.reset_s) * self.watts % self.range_j
        return (self.first_j + (now - self.began) * self.watts) % self.range_j

    def meter(self, lock: Any, ceiling_w: float) -> CounterMeter:
        return CounterMeter(
            "RAPL",
            "package-0",
            [Counter("package-0", self.read, self.range_j)],
            ceiling_w=ceiling_w,
            clock=self.clock,
            ticker=self.clock.ticker,
            lock=lock,
        )


def meter(values: Values, clock: Any, lock: Any, range_j: float | None = 100.0) -> CounterMeter:
    return CounterMeter(
        "counter",
        "a + b",
        values.counters(range_j),
        ceiling_w=60.0,
        clock=clock,
        ticker=clock.ticker,
        lock=lock,
    )


def refusal(counter: CounterMeter) -> str:
    with pytest.raises(MeterError) as caught:
        counter.end()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_counters_are_subtracted_and_added(clock: Any, lock: Any) -> None:
    values = Values(a=10.0, b=50.0)
    counter = meter(values, clock, lock)
    values.a = 11.0  # before the window: not in it
    counter.begin()
    clock.sleep(3.5)
    values.a, values.b = 18.0, 53.0
    energy = counter.end()
    assert (energy.joules, energy.seconds, energy.samples) == (10.0, 3.5, 2 + 3)
    assert energy.how == "counter (a + b), difference of the energy counter"
    assert clock.running == 0


def test_a_counter_that_begins_again_at_0_is_followed(clock: Any, lock: Any) -> None:
    values = Values(a=95.0, b=1.0)
    counter = meter(values, clock, lock)
    counter.begin()
    clock.sleep(1.5)
    values.a, values.b = 7.0, 2.0
    assert counter.end().joules == (100.0 - 95.0 + 7.0) + 1.0


def test_a_long_window_sees_every_turn(clock: Any, lock: Any) -> None:
    counter = Running(clock, 50.0, 100.0, first_j=30.0).meter(lock, 60.0)
    counter.begin()
    clock.sleep(600.0)  # 300 turns
    assert counter.end().joules == pytest.approx(30_000.0)


@pytest.mark.parametrize("reset_s", [1.0, 60.0, 299.5, 300.0, 599.9])
def test_a_reset_in_a_long_window_of_little_power_is_refused(
    clock: Any, lock: Any, reset_s: float
) -> None:
    running = Running(clock, 30.0, 262_143.0, first_j=200_000.0)
    counter = running.meter(lock, 1000.0)
    counter.begin()
    running.reset_s = clock() + reset_s
    # taken for a turn, it would add some 50 kJ to 18 kJ: less than 1000 W over the whole window
    clock.sleep(600.0)
    text = refusal(counter)
    assert "RAPL: counter package-0 went back from 2" in text
    assert "more than 1000 W; it was reset within the window, so measure again" in text


def test_what_a_reset_can_hide_is_a_second_of_the_ceiling(clock: Any, lock: Any) -> None:
    running = Running(clock, 30.0, 262_143.0, first_j=262_143.0 - 300 * 30.0 - 1_000.0)
    counter = running.meter(lock, 1000.0)
    counter.begin()
    running.reset_s = clock() + 300.0
    clock.sleep(600.0)
    assert counter.end().joules - 18_000.0 == pytest.approx(1_000.0)


def test_a_turn_after_a_long_time_without_a_reading_may_be_a_reset(clock: Any, lock: Any) -> None:
    running = Running(clock, 30.0, 262_143.0, first_j=210_000.0)
    counter = running.meter(lock, 1000.0)
    counter.begin()
    running.reset_s = clock() + 300.0
    running.fails_s = (clock() + 270.0, clock() + 330.0)
    clock.sleep(600.0)
    text = refusal(counter)
    assert "counter package-0 went back from 218100 J to 900 J in 60 s without a reading" in text
    assert "lower the load of other processes and measure again" in text


def test_a_reading_soon_after_another_may_see_a_step(clock: Any, lock: Any) -> None:
    values = Values(a=0.0)
    counter = meter(values, clock, lock)  # 60 W at most
    counter.begin()
    clock.sleep(2.0)  # the last tick falls on the end
    values.a = 5.0  # a step of 0.1 s at 50 W
    assert counter.end().joules == 5.0


def test_a_reading_that_fails_on_the_way_is_made_good(clock: Any, lock: Any) -> None:
    values = Values(a=0.0)
    fails = False

    def read() -> float:
        if fails:
            raise ReadFailed("no")
        return values.a

    counter = CounterMeter(
        "c", "s", [Counter("a", read)], ceiling_w=60, clock=clock, ticker=clock.ticker, lock=lock
    )
    counter.begin()
    fails = True
    clock.sleep(90.5)
    fails, values.a = False, 30.0
    assert counter.end().joules == 30.0


def test_a_counter_without_range_that_goes_back_was_reset(clock: Any, lock: Any) -> None:
    values = Values(a=95.0)
    counter = meter(values, clock, lock, range_j=None)
    counter.begin()
    clock.sleep(2.0)
    values.a = 7.0
    assert "counter a went back from 95 J to 7 J" in refusal(counter)


def test_a_reset_on_the_way_refuses_the_window(clock: Any, lock: Any) -> None:
    values = Values(a=95.0)
    counter = meter(values, clock, lock, range_j=None)
    counter.begin()
    values.a = 7.0
    clock.sleep(61.0)
    values.a = 99.0
    assert "went back" in refusal(counter)


def test_a_counter_with_range_that_was_reset_shows_too_much_power(clock: Any, lock: Any) -> None:
    values = Values(a=20.0)
    counter = meter(values, clock, lock, range_j=1000.0)
    counter.begin()
    clock.sleep(2.5)
    values.a = 3.0
    assert refusal(counter) == (
        "counter: counter a went back from 20 J to 3 J, which takes 983 J in 0.5 s and more than "
        "60 W; it was reset within the window, so measure again"
    )


def test_a_counter_that_leaps_was_set(clock: Any, lock: Any) -> None:
    values = Values(a=20.0, b=1.0)
    counter = meter(values, clock, lock, range_j=1000.0)
    counter.begin()
    values.b = 900.0
    clock.sleep(30.0)
    assert "b rose from 1 J to 900 J, which takes 899 J in 1 s and more than" in refusal(counter)


def test_a_counter_that_stands_still_is_stuck(clock: Any, lock: Any) -> None:
    counter = meter(Values(a=20.0, b=3.0), clock, lock)
    counter.begin()
    clock.sleep(2.0)
    assert "the counter (a + b) did not move in 2 s" in refusal(counter)


def test_a_short_window_is_refused_for_being_short(clock: Any, lock: Any) -> None:
    counter = meter(Values(a=20.0), clock, lock)
    counter.begin()
    clock.sleep(0.25)
    assert "a window of 0.25 s is too short" in refusal(counter)


@pytest.mark.parametrize("joules", [-1.0, 100.5])
def test_a_counter_outside_its_range_is_nonsense(clock: Any, lock: Any, joules: float) -> None:
    with pytest.raises(MeterError, match=f"counter a reads {joules:g} J, outside 0 to 100 J"):
        meter(Values(a=joules), clock, lock)
