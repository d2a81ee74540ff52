"""Measure steady steps of a method, untouched, and count one more.

The method adapts inside a real `Window`, which an observer closes after a fixed number of steps:
warm-up, then the repeats whose time and peak memory are read, and last the one that is counted.
Counting comes last because it leaves small objects all over the heap, which then holds more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.contracts.data import Batch
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.costs.tracker import ChargedStep, StepObserver
from bench.meters import process_memory as memory
from bench.probe.timing import Clock, busy_share
from bench.run.window import Window

WARM = 3
"""Steps before the first that is measured; the first of them makes the optimizer's state."""


@dataclass
class Watched:
    """What was seen of one kind of step.

    ``trace`` of the counted step; ``seconds`` of each repeat; ``busy``: share of the repeats' wall
    time in which each thread had a processor; ``peak_bytes``: the most that the process held during
    the repeats (see `memory`).
    """

    trace: StepTrace = field(default_factory=StepTrace)
    seconds: list[float] = field(default_factory=list)
    busy: float = 1.0
    peak_bytes: int = 0


class Watch:
    """Runs through the phases, step by step: ``repeats`` are measured, computed by ``threads``."""

    def __init__(
        self, repeats: int, accelerator: str, clock: Clock = time.perf_counter, threads: int = 1
    ) -> None:
        self.seen = Watched()
        self._repeats, self._taken = repeats, 0
        self._accelerator, self._clock, self._threads = accelerator, clock, threads
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
            torch.cuda.synchronize()


class WatchedSteps(StepObserver):
    """Passes each step over a batch through a `Watch`, and closes the window when that is done.

    Sections are left alone; they are no steps. ``window`` is to be set when it is open.
    """

    def __init__(self, watch: Watch, resident: Callable[[], Any]) -> None:
        self.window: Window | None = None
        self._watch, self._resident = watch, resident
        self._step = ExitStack()

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        self._step.enter_context(self._watch.step(self._resident))

    def on_step(self, step: ChargedStep) -> None:
        self._step.close()
        if self.window is not None:
            self.window.closed |= self._watch.done
