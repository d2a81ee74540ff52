"""The protocol of an energy measurement: idle baseline, warm-up, repeats, intervals.

Each repeat is an idle window and, right after it, a window in which the work is called until the
minimum time is over. With a baseline in each repeat the interval of the energy above idle covers
the scatter of both, and slow drift (a warming board) cancels.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bench.errors import BenchError
from bench.meters.base import Clock, Energy, EnergyMeter, MeterError

CONFIDENCE = 0.95
LEAST_REPEATS = 3
WINDOW_S = 5.0
"""Length of a window in seconds, unless the meter needs longer ones."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` repeats; its 95 % t interval is mean plus or minus ``half_width``."""

    mean: float
    half_width: float
    n: int


@dataclass(frozen=True)
class Repeat:
    """One idle window and one window with ``calls`` calls of the work."""

    idle: Energy
    work: Energy
    calls: int

    @property
    def gross_j(self) -> float:
        """Joules per call, everything that the device drew."""
        return self.work.joules / self.calls

    @property
    def above_idle_j(self) -> float:
        """Joules per call beyond what the device would have drawn at rest in the same time."""
        return (self.work.joules - self.idle.power_w * self.work.seconds) / self.calls


@dataclass(frozen=True)
class Measurement:
    """Energy (J) and time (s) of one call of the work, and the idle power (W).

    ``repeats`` are the raw values and ``how`` names the meter and what it covers.
    """

    gross_j: Estimate
    above_idle_j: Estimate
    seconds: Estimate
    idle_w: Estimate
    repeats: tuple[Repeat, ...]
    how: str


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and 95 % t interval of independent values (at least two)."""
    from scipy import stats

    n = len(values)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    return Estimate(statistics.fmean(values), quantile * statistics.stdev(values) / math.sqrt(n), n)


def measure(
    work: Callable[[], object],
    meter: EnergyMeter,
    *,
    idle_s: float | None = None,
    warmup: int = 1,
    repeats: int = 5,
    minimum_s: float | None = None,
    settle_s: float = 1.0,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Measurement:
    """Measure the energy of ``work``; nobody else measures this machine from begin to end.

    Parameters
    ----------
    work : returns when its last operation is done (synchronise a GPU in it)
    idle_s : seconds of each idle window; by default 5, or what the meter needs if that is more
    warmup : calls before the first repeat that are not measured
    repeats : at least 3, for a useful interval
    minimum_s : the work is called until its window is at least this long; default as ``idle_s``
    settle_s : pause before each idle window, for clocks and fans

    Raises BenchError if the protocol asks for too little, MeterError if the meter refuses a window
    or does not react at all.
    """
    if repeats < LEAST_REPEATS:
        raise BenchError(f"repeats={repeats} gives no interval; use at least {LEAST_REPEATS}")
    default_s = max(WINDOW_S, meter.minimum_s)
    idle_s = default_s if idle_s is None else idle_s
    minimum_s = default_s if minimum_s is None else minimum_s
    for name, seconds in (("idle_s", idle_s), ("minimum_s", minimum_s)):
        if seconds < meter.minimum_s:
            least = f"{meter.name} can measure; use at least {meter.minimum_s:g}"
            raise BenchError(f"{name}={seconds:g} is shorter than {least}")
    with meter.alone():
        for _ in range(warmup):
            work()
        rows = []
        for _ in range(repeats):
            sleep(settle_s)
            idle, _ = _window(meter, partial(sleep, idle_s), 0.0, clock)
            energy, calls = _window(meter, work, minimum_s, clock)
            rows.append(Repeat(idle, energy, calls))
    watts = {w for row in rows for window in (row.idle, row.work) for w in window.watts}
    if len(watts) == 1:
        raise MeterError(
            f"{meter.name} ({meter.scope}) reads {watts.pop():g} W throughout, at rest and at "
            "work; the sensor is stuck, or the work does not load the device"
        )
    return Measurement(
        gross_j=estimate([r.gross_j for r in rows]),
        above_idle_j=estimate([r.above_idle_j for r in rows]),
        seconds=estimate([r.work.seconds / r.calls for r in rows]),
        idle_w=estimate([r.idle.power_w for r in rows]),
        repeats=tuple(rows),
        how=meter.how,
    )


def _window(
    meter: EnergyMeter, work: Callable[[], object], minimum_s: float, clock: Clock
) -> tuple[Energy, int]:
    """One window with enough calls to fill ``minimum_s``, at least one."""
    meter.begin()
    try:
        calls, began = 0, clock()
        while calls == 0 or clock() - began < minimum_s:
            work()
            calls += 1
    except BaseException:
        meter.cancel()
        raise
    return meter.end(), calls
