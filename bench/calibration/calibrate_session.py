"""One calibration from the first measurement to the file's content."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from bench.calibration import host as machine
from bench.calibration.calibrate import Findings, Power, profile_of
from bench.calibration.convolutions import convolutions
from bench.calibration.fit_curves import Sized, counted, curves, usable
from bench.calibration.fresh_process import measure_fresh
from bench.calibration.memory_fit import NETWORKS, QUICK_NETWORKS, measure_footprint
from bench.calibration.operand_pool import Pool, cache_bytes
from bench.calibration.operators import LEAST, QUICK, Sizes, large_copy, operators
from bench.calibration.optimizer_steps import DISPATCHES, AutogradCall, optimizer_steps
from bench.calibration.timing import Clock, Timer, measure
from bench.costs import process_memory as memory
from bench.errors import BenchError

POOL_BYTES = 2**28
"""Of the block from which operands are taken, where memory suffices."""
LARGEST = 0.25
"""Share of the free memory that the operands of one case may take."""
SHORT_ROUNDS = 5
"""Least rounds of what takes microseconds."""
QUIET_S = 10.0
"""Seconds between two lines of progress."""


@dataclass(frozen=True)
class Settings:
    """What a calibration is asked for.

    ``quick``: few small sizes, for a rough profile; ``rounds`` of timing; ``cpu_time``: seconds
    of this process instead of wall time, for one thread on a machine that others use.
    """

    name: str
    threads: int = 1
    accelerator: str = "cpu"
    rounds: int = 5
    quick: bool = False
    cpu_time: bool = False
    power: Power | None = None


def calibrated(settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """The content of the profile's file; ``say`` gets progress, a line at a time.

    Raises BenchError if memory cannot be read here.
    """
    machine.use_threads(settings.threads)
    known = machine.facts(settings.accelerator, settings.threads)
    total, free = memory.memory_bytes(settings.accelerator)
    networks = QUICK_NETWORKS if settings.quick else NETWORKS
    footprint = measure_footprint(
        partial(measure_fresh, threads=settings.threads), settings.accelerator, networks, say
    )
    timer = make_timer(settings, free)
    cases: list[Sized] = []
    for sizes in (LEAST, QUICK if settings.quick else Sizes()):
        cases += [*operators(sizes), *convolutions(sizes), *optimizer_steps(sizes)]
    cases += large_copy(sizes, timer.pool)
    with torch.no_grad():
        say(f"operators: counting {len(cases)}")
        traced = usable(cases, timer.pool, LARGEST * free, say)
        few = max(settings.rounds, SHORT_ROUNDS)
        autograd_s = 0.0
        if settings.accelerator == "cpu":  # else it is done while the accelerator works
            ((_, autograd_s),) = measure([AutogradCall()], timer, few)
        progress = _Progress(say, "operators")
        measured = curves(traced, timer, settings.rounds, progress, autograd_s)
        dispatches = [
            (counted(case, timer.pool), seconds)
            for case, seconds in measure(DISPATCHES, timer, few)
        ]
    how = (
        f"{machine.sentence(known)}; {'processor' if settings.cpu_time else 'wall'} time, lower "
        f"quartile of {settings.rounds} interleaved rounds; each thread had a processor "
        f"{timer.busy:.0%} of the time"
    )
    found = Findings(
        measured, dispatches, footprint, total, free, settings.accelerator, settings.threads,
        known["date"], how, timer.pool.cache_bytes,
    )  # fmt: skip
    warning = machine.crowded("the calibration", timer.busy, settings.threads)
    if warning and settings.accelerator == "cpu" and not settings.cpu_time:
        say(f"warning: {warning}")
    return profile_of(settings.name, found, settings.power)


def make_timer(settings: Settings, free: float) -> Timer:
    """A timer with a pool of operands, on the accelerator of the settings."""
    if settings.cpu_time and (settings.threads > 1 or settings.accelerator != "cpu"):
        raise BenchError("--cpu-time: counts one thread of a CPU; give --threads 1")
    clock: Clock = time.process_time if settings.cpu_time else time.perf_counter
    cache = cache_bytes(settings.accelerator)
    pool = Pool(settings.accelerator, int(min(POOL_BYTES, LARGEST * free)), cache)
    memory.long_run()
    if settings.accelerator == "cpu":
        return Timer(pool, clock, settings.threads, trim=memory.trim)
    return Timer(pool, clock, settings.threads, torch.cuda.synchronize)


class _Progress:
    """A line now and then."""

    def __init__(self, say: Callable[[str], None], what: str) -> None:
        self._say, self._what = say, what
        self._said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        if done == of or time.monotonic() - self._said >= QUIET_S:
            self._said = time.monotonic()
            self._say(f"{self._what}: {100 * done // of} %")
