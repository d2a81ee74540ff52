"""Meters that read power: sampled at a stated rate and integrated by the trapezoidal rule.

Each interval of the rate has one reading, at a random time in it: readings at even times would see
the same part of every call of work that repeats itself.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench.meters.base import (
    BackgroundMeter,
    Clock,
    DeviceLock,
    Energy,
    MeterError,
    Ticker,
    in_thread,
)


@dataclass(frozen=True)
class Sampling:
    """How a power sensor is read.

    ``rate_hz`` readings a second, fewer if the sensor takes longer, at random times from ``seed``;
    a window needs ``minimum_s`` seconds and ``minimum_samples`` readings, no two neighbours more
    than ``gap_s`` apart. ``clock`` and ``ticker`` are for tests.
    """

    rate_hz: float = 50.0
    minimum_s: float = 1.0
    minimum_samples: int = 8
    gap_s: float = 1.0
    seed: int = 0
    clock: Clock = time.monotonic
    ticker: Ticker = in_thread


def trapezoid(times_s: Sequence[float], watts: Sequence[float]) -> float:
    """Joules by the trapezoidal rule over the readings."""
    return float(np.trapezoid(watts, times_s))


def within(began: float, ended: float, times_s: Sequence[float], watts: Sequence[float]) -> float:
    """Joules from ``began`` to ``ended``, by the readings between them (at least one).

    The first and the last are extended to the ends: readings outside show a device at rest.
    """
    return trapezoid([began, *times_s, ended], [watts[0], *watts, watts[-1]])


def jittered(every_s: float, randomness: random.Random) -> Iterator[float]:
    """One time in each interval of ``every_s`` seconds, uniformly distributed."""
    for n in itertools.count():
        yield (n + randomness.random()) * every_s


def check_power(watts: float, what: str, ceiling_w: float) -> float:
    """``watts`` unchanged; MeterError for 0, less, or more than ``ceiling_w``."""
    if not watts > 0:
        raise MeterError(
            f"{what} reads {watts:g} W; a running device draws more than 0, so the sensor is off "
            "or wired elsewhere"
        )
    if watts > ceiling_w:
        raise MeterError(
            f"{what} reads {watts:g} W, above {ceiling_w:g} W, which is 10 times what the device "
            "can draw; the sensor's unit or driver is wrong"
        )
    return watts


class PowerMeter(BackgroundMeter):
    """Integrates a power sensor over time; gaps are judged at the end of the window.

    Parameters
    ----------
    sensor : returns watts now; raises ReadFailed or MeterError
    ceiling_w : no reading may exceed it
    """

    def __init__(
        self,
        name: str,
        scope: str,
        sensor: Callable[[], float],
        *,
        ceiling_w: float,
        sampling: Sampling | None = None,
        lock: DeviceLock | None = None,
    ) -> None:
        self.sampling = s = sampling or Sampling()
        super().__init__(
            name, scope, minimum_s=s.minimum_s, clock=s.clock, ticker=s.ticker, lock=lock
        )
        self._sensor = sensor
        self._ceiling_w = ceiling_w
        # One sequence for all windows: the same times in each would repeat the same error.
        self._randomness = random.Random(s.seed)
        self._began = 0.0
        self._times: list[float] = []
        self._watts: list[float] = []
        self._power()

    @property
    def how(self) -> str:
        rate = self.sampling.rate_hz
        return f"{super().how}, {rate:g} samples/s at random times, trapezoidal rule"

    def _power(self) -> float:
        return check_power(self._sensor(), f"{self.name}: {self.scope}", self._ceiling_w)

    def _sample(self) -> None:
        now = self._clock()
        self._watts.append(self._power())
        self._times.append(now)

    def _start(self) -> None:
        self._times, self._watts = [], []
        self._power()  # the device is still at rest: whether it can be read, and no more
        self._began = self._clock()
        self._start_reading(jittered(1 / self.sampling.rate_hz, self._randomness))

    def _finish(self) -> Energy:
        ended = self._clock()
        self._stop_reading()  # it may take one more reading, when the work is over
        if self._times and self._times[-1] > ended:
            del self._times[-1], self._watts[-1]
        seconds = ended - self._began
        if seconds >= self.minimum_s:  # a shorter window is refused for being short
            self._check_samples(ended)
        times, watts = self._times, tuple(self._watts)
        joules = within(self._began, ended, times, watts) if times else float("nan")
        return Energy(joules, seconds, len(times), self.how, watts)

    def _check_samples(self, ended: float) -> None:
        seconds = ended - self._began
        why = "" if self._failed is None else f" ({self._failed})"
        if len(self._times) < self.sampling.minimum_samples:
            raise MeterError(
                f"{self.name}: {len(self._times)} readings in {seconds:.3g} s, at least "
                f"{self.sampling.minimum_samples} are needed; lengthen the window{why}"
            )
        gap = float(np.diff([self._began, *self._times, ended]).max())
        # The rate that was asked for is no gap: up to two intervals, and a tick may come late.
        if gap > max(self.sampling.gap_s, 3 / self.sampling.rate_hz):
            raise MeterError(
                f"{self.name}: no reading for {gap:.3g} s within the window; lower the load of "
                f"other processes or the sampling rate{why}"
            )
