"""Measure steady steps of a method, untouched, and count one more.

The method adapts inside a real `Window`; the meter behind it lets a fixed number of steps pass:
warm-up, then the repeats whose time and peak memory are read, and last the one that is counted.
Counting comes last because it leaves small objects all over the heap, which then holds more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.calibration.timing import Clock, busy_share
from bench.costs import process_memory as memory
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.costs.tracker import CostTracker, Key

WARM = 3
"""Steps before the first that is measured; the first of them makes the optimizer's state."""


@dataclass
class Watched:
    """What was seen of one kind of step.

    Attributes
    ----------
    trace : of the counted step
    seconds : of each repeat
    busy : share of the repeats' wall time in which each thread had a processor; below 1 others
        were at work, or the process waited for an accelerator
    peak_bytes : the most that the process held during the repeats (see `memory`)
    """

    trace: StepTrace = field(default_factory=StepTrace)
    seconds: list[float] = field(default_factory=list)
    busy: float = 1.0
    peak_bytes: int = 0


class Watch:
    """Runs through the phases, step by step.

    Parameters
    ----------
    repeats : steps to measure
    accelerator : "cpu" or "cuda"
    clock : gives seconds
    threads : with which the steps compute
    """

    def __init__(
        self,
        repeats: int,
        accelerator: str,
        clock: Clock = time.perf_counter,
        threads: int = 1,
    ) -> None:
        self.seen = Watched()
        self._repeats = repeats
        self._taken = 0
        self._accelerator = accelerator
        self._clock = clock
        self._threads = threads
        self._process_s = self._wall_s = 0.0

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self._taken > WARM + self._repeats

    @contextmanager
    def step(self, resident: Callable[[], Any]) -> Iterator[None]:
        """Around one step; ``resident`` gives what the method stores."""
        self._taken += 1
        if self._taken <= WARM:
            if self._taken == WARM:  # what was left behind must not count; the pages come back
                memory.settle(self._accelerator)
            yield
        elif self._taken <= WARM + self._repeats:
            with self._measured():
                yield
        else:
            with StepTracer(resident()) as tracer:
                yield
            self.seen.trace = tracer.trace

    @contextmanager
    def _measured(self) -> Iterator[None]:
        if self._taken == WARM + 1:
            memory.reset_peak(self._accelerator)
        self._synchronise()
        process, wall, start = time.process_time(), time.perf_counter(), self._clock()
        yield
        self._synchronise()
        self.seen.seconds.append(self._clock() - start)
        self._wall_s += time.perf_counter() - wall
        self._process_s += time.process_time() - process
        self.seen.busy = busy_share(self._process_s, self._wall_s, self._threads)
        self.seen.peak_bytes = memory.peak_bytes(self._accelerator)

    def _synchronise(self) -> None:
        if self._accelerator != "cpu":
            import torch

            torch.cuda.synchronize()


class WatchingTracker(CostTracker):
    """A meter that charges nobody, for a `Window`: its steps pass through a `Watch`.

    Sections are left alone; they are no steps.
    """

    def __init__(self, watch: Watch, resident: Callable[[], Any]) -> None:
        super().__init__([], resident)
        self._watch = watch
        self._around: Any = None
        self._begun = False

    def admit(self, key: Key, budget_s: float) -> bool:
        return not self._watch.done

    @property
    def is_open(self) -> bool:
        return self._begun

    def begin(self, key: Key, recount: bool = False) -> None:
        self._begun = True
        if not recount:
            self._around = self._watch.step(self._resident)
            self._around.__enter__()

    def end(self, budget_s: float = float("inf"), cut_short: bool = False) -> None:
        self.close()

    def close(self) -> None:
        self._begun = False
        if self._around is not None:
            around, self._around = self._around, None
            around.__exit__(None, None, None)
