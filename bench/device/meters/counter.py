"""Meters that read a running total of energy: the difference of two readings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.device.meters.base import Clock, Energy, EnergyMeter, Ticker, in_thread
from bench.device.meters.errors import MeterError, ReadFailed
from bench.device.meters.lock import DeviceLock

TICK_S = 60.0
"""A counter is read at least this often, so that it cannot run round twice unseen."""


@dataclass(frozen=True)
class Counter:
    """A running total in joules; after ``range_j`` it begins again at 0 (None: it never does)."""

    name: str
    read: Callable[[], float]
    range_j: float | None = None


class CounterMeter(EnergyMeter):
    """The sum of counters that count different things.

    Parameters
    ----------
    ceiling_w : a larger mean power is refused: the counter was reset
    minimum_s : counters move in steps, and a short window may see none
    """

    def __init__(
        self,
        name: str,
        scope: str,
        counters: Sequence[Counter],
        *,
        ceiling_w: float,
        minimum_s: float = 1.0,
        clock: Clock = time.monotonic,
        ticker: Ticker = in_thread,
        lock: DeviceLock | None = None,
    ) -> None:
        super().__init__(name, scope, minimum_s=minimum_s, lock=lock)
        self._counters = tuple(counters)
        self._ceiling_w = ceiling_w
        self._clock = clock
        self._ticker = ticker
        self._last = self._read()
        self._joules = 0.0
        self._readings = 0
        self._began = 0.0
        self._refused: MeterError | None = None
        self._stop: Callable[[], None] = lambda: None

    @property
    def how(self) -> str:
        return f"{super().how}, difference of the energy counter"

    def _start(self) -> None:
        self._joules, self._readings, self._refused = 0.0, 1, None
        self._last = self._read()
        self._began = self._clock()
        self._stop = self._ticker(self._tick, TICK_S)

    def _finish(self) -> Energy:
        self._stop()
        if self._refused is not None:
            raise self._refused
        self._advance()
        seconds = self._clock() - self._began
        if seconds >= self.minimum_s:  # a shorter window is refused for being short
            self._check(seconds)
        return Energy(self._joules, seconds, self._readings, self.how)

    def _drop(self) -> None:
        self._stop()

    def _tick(self) -> None:
        try:
            self._advance()
        except ReadFailed:
            pass  # the next reading covers the time of this one
        except MeterError as error:
            self._refused = error

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

    def _advance(self) -> None:
        now = self._read()
        for counter, last, value in zip(self._counters, self._last, now, strict=True):
            if value < last and counter.range_j is None:
                raise MeterError(
                    f"{self.name}: counter {counter.name} went back from {last:g} J to {value:g} "
                    "J; it was reset within the window, so measure again"
                )
            self._joules += value - last + (counter.range_j or 0.0) * (value < last)
        self._last = now
        self._readings += 1

    def _check(self, seconds: float) -> None:
        if self._joules == 0:
            raise MeterError(
                f"{self.name}: the counter ({self.scope}) did not move in {seconds:.3g} s; it is "
                "stuck, or nothing counts behind it (a virtual machine?)"
            )
        if self._joules / seconds > self._ceiling_w:
            raise MeterError(
                f"{self.name}: {self._joules:g} J in {seconds:.3g} s are more than "
                f"{self._ceiling_w:g} W; the counter was reset within the window, so measure again"
            )
