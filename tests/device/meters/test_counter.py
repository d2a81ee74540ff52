"""Energy counters: differences, turns of the counter, and counters that cannot be believed."""

from __future__ import annotations

from typing import Any

import pytest

from bench.device.meters.counter import Counter, CounterMeter
from bench.device.meters.errors import MeterError, ReadFailed


class Values:
    """Counters that show what the test sets."""

    def __init__(self, **joules: float) -> None:
        self.__dict__.update(joules)

    def counters(self, range_j: float | None) -> list[Counter]:
        return [Counter(n, lambda n=n: getattr(self, n), range_j) for n in vars(self)]


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
    clock.sleep(4.0)
    values.a, values.b = 18.0, 53.0
    energy = counter.end()
    assert (energy.joules, energy.seconds, energy.samples) == (10.0, 4.0, 2)
    assert energy.how == "counter (a + b), difference of the energy counter"
    assert clock.running == 0


def test_a_counter_that_begins_again_at_0_is_followed(clock: Any, lock: Any) -> None:
    values = Values(a=95.0, b=1.0)
    counter = meter(values, clock, lock)
    counter.begin()
    clock.sleep(2.0)
    values.a, values.b = 7.0, 2.0
    assert counter.end().joules == (100.0 - 95.0 + 7.0) + 1.0


def test_a_long_window_sees_every_turn(clock: Any, lock: Any) -> None:
    values = Values(a=0.0)
    counter = meter(values, clock, lock)
    counter.begin()
    for minute in range(1, 6):  # 80 J a minute in a counter of 100 J
        values.a = 80.0 * minute % 100.0
        clock.sleep(60.0)
    assert counter.end().joules == 400.0


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
    clock.sleep(90.0)
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
    clock.sleep(2.0)
    values.a = 3.0
    assert "983 J in 2 s are more than 60 W" in refusal(counter)


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
