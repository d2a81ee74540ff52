"""Time small pieces of work: interleaved rounds, cold operands, and the lower quartile.

A round measures every case once, so that a slow minute of the machine hits all alike and not
one. Of a case's rounds the lower quartile counts: whatever disturbs a computation makes it
longer, and the minimum is an accident of its own.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from bench.calibration.operand_pool import Pool

if TYPE_CHECKING:
    from torch import Tensor

Clock = Callable[[], float]
"""Seconds, from any origin."""

SAMPLE_S = 1e-3
"""A measurement of fewer seconds is of several calls."""
LONG_S = 0.05
"""A call that takes as long is measured once in a round."""
CALLS = 1000
"""Most calls in a measurement."""
WARM_S = 0.02
"""Seconds for calls before the first measurement of a round."""
SAMPLES = 2
"""Measurements of a round."""

Call = Callable[[], object]


class Case(Protocol):
    """A piece of work that can be set up anew in every round."""

    @property
    def name(self) -> str:
        """What it is, for progress and errors."""

    def calls(self, pool: Pool) -> list[Call]:
        """The same work on different memory, to be done in turn."""


Kind = TypeVar("Kind", bound=Case)


@dataclass
class Timer:
    """Measures cases on one accelerator.

    clock : gives seconds
    threads : with which cases compute
    synchronise : waits until the accelerator has done what it was given
    trim : gives free memory back to the system
    """

    pool: Pool
    clock: Clock = time.perf_counter
    threads: int = 1
    synchronise: Callable[[], None] = lambda: None
    trim: Callable[[], None] = lambda: None
    process_s: float = field(default=0.0, init=False)
    wall_s: float = field(default=0.0, init=False)

    def seconds(self, case: Case) -> list[float]:
        """Seconds of a call of a case, now, twice; each the mean over a sample if it is short.

        As in a training step, what a call makes is kept for a while, so that the next one writes
        to other memory, and where there is some that was used before: the calls that warm up
        see to that. A case that is ``huge`` finds none, and takes fresh pages with every call.
        """
        calls = cycle(case.calls(self.pool))
        start = self.clock()
        made = [next(calls)()]
        self.synchronise()
        first = max(self.clock() - start, 1e-9)
        kept = deque(made, self._turns(made[0], first))
        for _ in range((kept.maxlen or 1) + 2):
            kept.append(next(calls)())
        if getattr(case, "huge", False):
            kept.clear()
            made.clear()
            return [self._fresh(calls) for _ in range(SAMPLES)]
        once = self._timed(calls, 1, kept)
        if once >= LONG_S:
            return [once]
        number = min(max(math.ceil(SAMPLE_S / max(once, 1e-9)), 1), CALLS)
        return [self._timed(calls, number, kept) for _ in range(SAMPLES)]

    def _fresh(self, calls: Iterator[Call]) -> float:
        self.trim()
        return self._timed(calls, 1, deque(maxlen=1))

    def _turns(self, made: object, seconds: float) -> int:
        """How many results are kept: more than the caches hold, if they are made in no time."""
        size = sum(t.numel() * t.element_size() for t in _tensors(made))
        wanted = math.ceil(2 * self.pool.cache_bytes / size) if size else 1
        return max(min(wanted, int(WARM_S / seconds), CALLS), 1)

    def _timed(self, calls: Iterator[Call], number: int, kept: deque[object]) -> float:
        self.synchronise()
        process, wall = time.process_time(), time.perf_counter()
        start = self.clock()
        for _ in range(number):
            kept.append(next(calls)())
        self.synchronise()
        taken = self.clock() - start
        self.process_s += time.process_time() - process
        self.wall_s += time.perf_counter() - wall
        return taken / number

    @property
    def busy(self) -> float:
        """Share of the measured time in which each thread had a processor, on average."""
        return busy_share(self.process_s, self.wall_s, self.threads)


def busy_share(process_s: float, wall_s: float, threads: int) -> float:
    """Share of ``wall_s`` in which each of ``threads`` had a processor, of seconds of them all."""
    return min(process_s / (wall_s * threads), 1.0) if wall_s else 1.0


def measure(
    cases: Sequence[Kind],
    timer: Timer,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[tuple[Kind, float]]:
    """Each case with the lower quartile of its seconds over the rounds.

    ``progress`` is told how many measurements are done, of how many.
    """
    found: list[list[float]] = [[] for _ in cases]
    for round_ in range(rounds):
        for i, case in enumerate(cases):
            found[i] += timer.seconds(case)
            progress(round_ * len(cases) + i + 1, rounds * len(cases))
    return [(case, lower_quartile(times)) for case, times in zip(cases, found, strict=True)]


def _tensors(made: object) -> list[Tensor]:
    parts = made if isinstance(made, list | tuple) else [made]
    return [cast("Tensor", part) for part in parts if hasattr(part, "element_size")]


def lower_quartile(values: Sequence[float]) -> float:
    """The value at a quarter of the sorted values, linear between neighbours."""
    ordered = sorted(values)
    place = (len(ordered) - 1) / 4
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
