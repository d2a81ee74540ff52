"""Time small pieces of work: interleaved rounds, cold operands, and the lower quartile.

A round measures every case once, so that a slow minute of the machine hits all alike. Of a case's
rounds the lower quartile counts: disturbances make a computation longer, and the minimum is an
accident. Operands are parts, one after another, of one block of random numbers (`Pool`) larger
than the caches: a part that was used a while ago is read from memory, as in a step.
"""

import math
import time
from collections import deque
from itertools import cycle
from pathlib import Path
from typing import Any, Callable, Deque, Iterator, List, Sequence, Tuple, TypeVar

import torch
from torch import Tensor

Clock = Callable[[], float]
"""Seconds from an arbitrary origin."""

POOL_BYTES = 2**28
"""Size of the block that holds the operands, where memory suffices."""
LARGEST = 0.25
"""Largest share of the free memory for the operands of one case."""
SHORT_ROUNDS = 5
"""Minimum number of rounds for calls that take microseconds."""
MIN_BACKWARD_SHARE = 0.05
"""Minimum share of a backward pass that remains after subtracting autograd's own time."""
SAMPLE_S, CALLS = 1e-3, 1000
"""A shorter call is repeated until a measurement takes so many seconds, or has so many calls."""
LONG_S = 0.05
"""A longer call is measured once in a round, others as often as ``SAMPLES``."""
SAMPLES = 2
WARM_S = 0.02
"""Seconds of warm-up calls before the first measurement of a round."""
CACHE_BYTES = 32 * 2**20
"""Assumed size of the last-level cache where the system reports none."""
ALIGN = 64
"""Numbers between the starts of parts: whole cache lines."""
SETS = 32
"""Maximum number of sets of operands that are used in turn."""

Call = Callable[[], object]


class Pool:
    """A block of ``size`` bytes of random numbers in [0.5, 1), on ``cpu`` or ``cuda``.

    ``cache_bytes``: of the last-level cache; rotating operands take at least twice as much.
    """

    def __init__(self, accelerator: str, size: int, cache_bytes: int) -> None:
        self.accelerator = accelerator
        self.cache_bytes = cache_bytes
        generator = torch.Generator(accelerator).manual_seed(0)
        self._block = torch.rand(size // 4, generator=generator, device=accelerator)
        self._block.div_(2).add_(0.5)
        self._typed = {torch.float32: self._block}
        self._next = 0

    @property
    def size(self) -> int:
        """Bytes of the block."""
        return self._block.numel() * 4

    def take(self, *shape: int, dtype: str = "float32") -> Tensor:
        """The next part, contiguous; it may share memory with earlier parts."""
        kind = getattr(torch, dtype)
        if kind not in self._typed:
            self._typed[kind] = self._block[: self._block.numel() // 2].to(kind)
        block = self._typed[kind]
        count = product(shape)
        if self._next + count > block.numel():
            self._next = 0
        part = block[self._next : self._next + count].view(shape)
        self._next += math.ceil(count / ALIGN) * ALIGN
        return part

    def own(self, *shape: int, dtype: str = "float32") -> Tensor:
        """A copy, for work that changes it in place."""
        return self.take(*shape, dtype=dtype).clone()

    def sets(self, cold_bytes: float) -> int:
        """The number of sets of operands of this size to rotate, so that each is cold again."""
        each = max(cold_bytes, 1.0)
        return max(min(math.ceil(2 * self.cache_bytes / each), int(self.size // each), SETS), 1)


def cache_bytes(accelerator: str) -> int:
    """Bytes of the last-level cache."""
    if accelerator != "cpu":
        known = torch.cuda.get_device_properties(0)
        return int(getattr(known, "L2_cache_size", CACHE_BYTES))
    found = [_size(path) for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    return max(found, default=CACHE_BYTES)


def _size(path: Path) -> int:
    try:
        text = path.read_text().strip()
        return int(text.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1], 1)
    except (OSError, ValueError):
        return 0


Case = Any
"""Work that is set up anew in every round.

It has a ``name`` and ``calls(pool)``: the same work on different memory, to be called in turn.
"""
Kind = TypeVar("Kind")


class Timer:
    """Measures cases, which compute with ``threads``, on the pool's accelerator.

    ``synchronise`` waits until it has finished; ``trim`` returns free memory to the system.
    """

    def __init__(
        self,
        pool: Pool,
        clock: Clock = time.perf_counter,
        threads: int = 1,
        synchronise: Callable[[], None] = lambda: None,
        trim: Callable[[], None] = lambda: None,
    ) -> None:
        self.pool, self.clock, self.threads = pool, clock, threads
        self.synchronise, self.trim = synchronise, trim
        self.process_s = self.wall_s = 0.0

    def seconds(self, case: Case) -> List[float]:
        """Seconds per call of a case, measured twice; a short call is averaged over many.

        As in a training step, results are kept for a while, so that the next call writes to memory
        that the warm-up calls have allocated; a ``huge`` case takes fresh pages in every call.
        """
        calls = cycle(case.calls(self.pool))
        start = self.clock()
        made = [next(calls)()]
        self.synchronise()
        first = max(self.clock() - start, 1e-9)
        kept: Deque[object] = deque(made, self._turns(made[0], first))
        for _ in range((kept.maxlen or 1) + 2):
            kept.append(next(calls)())
        if getattr(case, "huge", False):
            kept.clear()
            made.clear()
            fresh = []
            for _ in range(SAMPLES):
                self.trim()
                fresh.append(self._timed(calls, 1, deque(maxlen=1)))
            return fresh
        once = self._timed(calls, 1, kept)
        if once >= LONG_S:
            return [once]
        number = min(max(math.ceil(SAMPLE_S / max(once, 1e-9)), 1), CALLS)
        return [self._timed(calls, number, kept) for _ in range(SAMPLES)]

    def _turns(self, made: Any, seconds: float) -> int:
        """The number of results to keep: more than the caches hold, if the calls are short."""
        parts = made if isinstance(made, (list, tuple)) else [made]
        size = sum(t.numel() * t.element_size() for t in parts if hasattr(t, "element_size"))
        wanted = math.ceil(2 * self.pool.cache_bytes / size) if size else 1
        return max(min(wanted, int(WARM_S / seconds), CALLS), 1)

    def _timed(self, calls: Iterator[Call], number: int, kept: Deque[object]) -> float:
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
        """Mean CPU utilization of a thread during the measurements."""
        return busy_share(self.process_s, self.wall_s, self.threads)


def busy_share(process_s: float, wall_s: float, threads: int) -> float:
    """CPU utilization of each of ``threads``: ``process_s`` is the CPU time of all of them."""
    return min(process_s / (wall_s * threads), 1.0) if wall_s else 1.0


def measure(
    cases: Sequence[Kind],
    timer: Timer,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> List[Tuple[Kind, float]]:
    """Each case with the lower quartile of its seconds; ``progress`` gets those done and all."""
    found: List[List[float]] = [[] for _ in cases]
    for round_ in range(rounds):
        for i, case in enumerate(cases):
            found[i] += timer.seconds(case)
            progress(round_ * len(cases) + i + 1, rounds * len(cases))
    return [(case, lower_quartile(times)) for case, times in zip(cases, found)]


def lower_quartile(values: Sequence[float]) -> float:
    """The value at a quarter of the sorted values, linear between neighbours."""
    ordered = sorted(values)
    place = 0.25 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def product(numbers: Sequence[int]) -> int:
    """Of all; 1 if there are none."""
    found = 1
    for number in numbers:
        found *= number
    return found
