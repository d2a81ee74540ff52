"""Meters that read a running total of energy: the difference of two readings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Unpack

from bench.meters.base import BackgroundMeter, Energy, MeterError, Options

TICK_S = 1.0
"""A counter is read this often, so that it cannot wrap around twice unseen, and so that a reset
cannot hide in what a device could have drawn since the last reading."""
STEP_S = 0.1
"""Longest step in which counters move: a millisecond with RAPL, a tenth of a second with NVML."""
GAP_S = 5.0
"""After longer without a reading, a lower counter may have wrapped around or been reset."""


@dataclass(frozen=True)
class Counter:
    """A running total in joules; after ``range_j`` it begins again at 0 (None: it never does)."""

    name: str
    read: Callable[[], float]
    range_j: float | None = None


class CounterMeter(BackgroundMeter):
    """The sum of counters that count different things.

    A counter that rises faster than ``ceiling_w`` between two readings was reset, and the window is
    refused. A reset of a counter with a range looks like a wrap-around: it passes only where the
    range's end is no further than ``ceiling_w`` goes in that time, and adds no more.
    """

    def __init__(
        self,
        name: str,
        scope: str,
        counters: Sequence[Counter],
        *,
        ceiling_w: float,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(name, scope, **options)
        self._counters = tuple(counters)
        self._ceiling_w = ceiling_w
        self._last = self._read()
        self._began = self._last_s = self._joules = 0.0
        self._readings = 0

    @property
    def how(self) -> str:
        return f"{super().how}, difference of the energy counter"

    def _start(self) -> None:
        self._joules, self._readings = 0.0, 1
        self._last = self._read()
        self._began = self._last_s = self._clock()
        self._start_reading(itertools.count(TICK_S, TICK_S))

    def _finish(self) -> Energy:
        self._stop_reading()
        self._sample()
        seconds = self._last_s - self._began
        # A shorter window is refused for being short.
        if seconds >= self.minimum_s and self._joules == 0:
            raise MeterError(
                f"{self.name}: the counter ({self.scope}) did not move in {seconds:.3g} s; it is "
                "stuck, or nothing counts behind it (a virtual machine?)"
            )
        return Energy(self._joules, seconds, self._readings, self.how)

    def _read(self) -> list[float]:
        values = []
        for counter in self._counters:
            value = counter.read()
            if value < 0 or (counter.range_j is not None and value > counter.range_j):
                raise MeterError(
                    f"{self.name}: counter {counter.name} reads {value:g} J, outside 0 to "
                    f"{counter.range_j or float('inf'):g} J; its driver fails"
                )
            values.append(value)
        return values

    def _sample(self) -> None:
        now, now_s = self._read(), self._clock()
        elapsed = now_s - self._last_s
        for counter, last, value in zip(self._counters, self._last, now, strict=True):
            self._joules += self._rise(counter, last, value, elapsed)
        self._last, self._last_s = now, now_s
        self._readings += 1

    def _rise(self, counter: Counter, last: float, value: float, elapsed: float) -> float:
        """Joules from one reading of a counter to the next; MeterError if it was reset between."""
        name, rise = f"{self.name}: counter {counter.name}", value - last
        went = f"rose from {last:g} J to {value:g} J"
        if value < last:
            went = f"went back from {last:g} J to {value:g} J"
            if counter.range_j is None:
                raise MeterError(f"{name} {went}; it was reset within the window, so measure again")
            if elapsed > GAP_S:
                raise MeterError(
                    f"{name} {went} in {elapsed:.3g} s without a reading, so it may have been "
                    "reset; lower the load of other processes and measure again"
                )
            rise += counter.range_j
        if rise > self._ceiling_w * (elapsed + STEP_S):
            raise MeterError(
                f"{name} {went}, which takes {rise:g} J in {elapsed:.3g} s and more than "
                f"{self._ceiling_w:g} W; it was reset within the window, so measure again"
            )
        return rise
