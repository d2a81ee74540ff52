"""Meters that read power: sampled at a stated rate and integrated by the trapezoidal rule."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.device.meters.base import Clock, Energy, EnergyMeter, Ticker, in_thread
from bench.device.meters.errors import MeterError, ReadFailed
from bench.device.meters.lock import DeviceLock


@dataclass(frozen=True)
class Sampling:
    """How a power sensor is read.

    ``rate_hz`` readings a second; a window needs ``minimum_s`` seconds and ``minimum_samples``
    readings, no two neighbours more than ``gap_s`` apart: a thread that gets no processor time
    for longer has not seen what happened. ``clock`` and ``ticker`` are for tests.
    """

    rate_hz: float = 10.0
    minimum_s: float = 1.0
    minimum_samples: int = 8
    gap_s: float = 1.0
    clock: Clock = time.monotonic
    ticker: Ticker = in_thread


def trapezoid(times_s: Sequence[float], watts: Sequence[float]) -> float:
    """Joules under the line through the readings."""
    return float(np.trapezoid(watts, times_s))


def check_power(watts: float, what: str, ceiling_w: float) -> float:
    """``watts`` as they are, if a running device can draw them.

    Raises MeterError for 0, less, or more than ``ceiling_w``.
    """
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


class PowerMeter(EnergyMeter):
    """Integrates a power sensor over time.

    A reading that fails is left out, and the gap is judged at the end of the window; one that
    makes no sense refuses the window.

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
        self.sampling = sampling or Sampling()
        super().__init__(name, scope, minimum_s=self.sampling.minimum_s, lock=lock)
        self._sensor = sensor
        self._ceiling_w = ceiling_w
        self._times: list[float] = []
        self._watts: list[float] = []
        self._failed: ReadFailed | None = None
        self._refused: MeterError | None = None
        self._stop: Callable[[], None] = lambda: None
        self._power()

    @property
    def how(self) -> str:
        return f"{super().how}, {self.sampling.rate_hz:g} samples/s, trapezoidal rule"

    def _power(self) -> float:
        return check_power(self._sensor(), f"{self.name}: {self.scope}", self._ceiling_w)

    def _sample(self) -> None:
        now = self.sampling.clock()
        watts = self._power()
        self._times.append(now)
        self._watts.append(watts)

    def _tick(self) -> None:
        if self._refused is None:
            try:
                self._sample()
            except ReadFailed as error:
                self._failed = error
            except MeterError as error:
                self._refused = error

    def _start(self) -> None:
        self._times, self._watts = [], []
        self._failed = self._refused = None
        self._sample()
        self._stop = self.sampling.ticker(self._tick, 1 / self.sampling.rate_hz)

    def _finish(self) -> Energy:
        self._stop()
        if self._refused is not None:
            raise self._refused
        self._sample()
        seconds = self._times[-1] - self._times[0]
        if seconds >= self.minimum_s:  # a shorter window is refused for being short
            self._check_samples(seconds)
        return Energy(
            joules=trapezoid(self._times, self._watts),
            seconds=seconds,
            samples=len(self._times),
            how=self.how,
            watts=tuple(self._watts),
        )

    def _drop(self) -> None:
        self._stop()

    def _check_samples(self, seconds: float) -> None:
        why = "" if self._failed is None else f" ({self._failed})"
        if len(self._times) < self.sampling.minimum_samples:
            raise MeterError(
                f"{self.name}: {len(self._times)} readings in {seconds:.3g} s, at least "
                f"{self.sampling.minimum_samples} are needed; lengthen the window{why}"
            )
        gap = float(np.diff(self._times).max())
        # The rate that was asked for is no gap, and a tick may come a little late.
        if gap > max(self.sampling.gap_s, 2 / self.sampling.rate_hz):
            raise MeterError(
                f"{self.name}: no reading for {gap:.3g} s within the window; lower the load of "
                f"other processes or the sampling rate{why}"
            )
