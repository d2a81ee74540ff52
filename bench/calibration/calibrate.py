"""One calibration: timed operators, their curves, and the content of the profile's file.

Each timed call is traced by the tracer that will trace real steps.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from bench.calibration import host as machine
from bench.calibration.measure_case import measure_fresh
from bench.calibration.memory_fit import NETWORKS, QUICK_NETWORKS, measure_footprint
from bench.calibration.operators import (
    QUICK,
    SMALLEST,
    Sizes,
    convolutions,
    large_copy,
    operators,
    optimizer_steps,
)
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import step_cost
from bench.costs.speed_curves import Curve, Point
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.errors import BenchError
from bench.meters import process_memory as memory
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.probe.cases import AutogradCall, Operator, OptimizerStep
from bench.probe.networks import DISPATCHES
from bench.probe.profile import (
    MIN_LAUNCH_S,
    Measurements,
    Power,
    content_of,
    measured,
)
from bench.probe.timing import (
    LARGEST,
    MIN_BACKWARD_SHARE,
    POOL_BYTES,
    SHORT_ROUNDS,
    Case,
    Clock,
    Pool,
    Timer,
    cache_bytes,
    measure,
)

Sized = Operator | OptimizerStep
Log = Callable[[str], None]
"""Gets progress, a line at a time."""

QUIET_S = 10.0
"""Minimum seconds between two lines of progress."""

HEAD = """\
# Written by 'bench device calibrate'. Points of curves are [operations, bytes, seconds] of a call.
# Watts are assumptions unless --idle-watts and --busy-watts were given; with assumptions a run
# records no energy (energy_unavailable).
"""


@dataclass(frozen=True)
class Settings:
    """Options of a calibration.

    ``quick``: few small sizes, for a rough profile; ``rounds`` of timing; ``cpu_time``: CPU seconds
    of this process instead of wall time, for one thread on a machine in use.
    """

    name: str
    threads: int = 1
    accelerator: str = "cpu"
    rounds: int = 5
    quick: bool = False
    cpu_time: bool = False
    power: Power | None = None


def calibrated(
    settings: Settings,
    log: Log,
    *,
    run: Callable[[dict[str, Any], int], dict[str, Any]] = measure_fresh,
    sizes: Sequence[Sizes] | None = None,
    pool_bytes: int = POOL_BYTES,
    cache: int | None = None,
) -> dict[str, Any]:
    """The content of the profile's file; BenchError if memory cannot be read here.

    ``run`` measures a request in a fresh process with so many threads. For tests: the ``sizes`` of
    operators (default: the smallest, then those of the settings), ``pool_bytes``, and bytes of the
    last-level ``cache`` (default: as the system reports).
    """
    sizes = sizes or (SMALLEST, QUICK if settings.quick else Sizes())
    machine.use_threads(settings.threads)
    known = machine.facts(settings.accelerator, settings.threads)
    total, free = memory.memory_bytes(settings.accelerator)
    networks = QUICK_NETWORKS if settings.quick else NETWORKS
    footprint = measure_footprint(
        lambda request: run(request, settings.threads), settings.accelerator, networks, log
    )
    timer = make_timer(settings, free, pool_bytes, cache)
    cases: list[Sized] = []
    for each in sizes:
        cases += [*operators(each), *convolutions(each), *optimizer_steps(each)]
    cases += large_copy(sizes[-1], timer.pool)
    with torch.no_grad():
        log(f"operators: counting {len(cases)}")
        chosen = single_operators(cases, timer.pool, LARGEST * free, log)
        few = max(settings.rounds, SHORT_ROUNDS)
        autograd_s = 0.0
        if settings.accelerator == "cpu":  # on an accelerator it overlaps with the kernels
            ((_, autograd_s),) = measure([AutogradCall()], timer, few)
        timed = curves(chosen, timer, settings.rounds, _progress(log), autograd_s)
        dispatches = [
            (traced(case, timer.pool), seconds) for case, seconds in measure(DISPATCHES, timer, few)
        ]
    how = (
        f"{machine.sentence(known)}; {'processor' if settings.cpu_time else 'wall'} time, lower "
        f"quartile of {settings.rounds} interleaved rounds; each thread had a processor "
        f"{timer.busy:.0%} of the time"
    )
    used = settings.accelerator, settings.threads
    cache = timer.pool.cache_bytes
    of = OPERATOR_CLASSES, "bench device calibrate"
    found = Measurements(
        timed, dispatches, footprint, total, free, *used, known["date"], how, cache, *of
    )
    warning = machine.contention_warning("the calibration", timer.busy, settings.threads)
    if warning and settings.accelerator == "cpu" and not settings.cpu_time:
        log(f"warning: {warning}")
    return profile_of(settings.name, found, settings.power)


def make_timer(
    settings: Settings, free: float, pool_bytes: int = POOL_BYTES, cache: int | None = None
) -> Timer:
    """A timer with a pool of operands, on the accelerator of the settings."""
    if settings.cpu_time and (settings.threads > 1 or settings.accelerator != "cpu"):
        raise BenchError("--cpu-time: counts one thread of a CPU; give --threads 1")
    clock: Clock = time.process_time if settings.cpu_time else time.perf_counter
    size = int(min(pool_bytes, LARGEST * free))
    pool = Pool(settings.accelerator, size, cache or cache_bytes(settings.accelerator))
    memory.long_run()
    if settings.accelerator == "cpu":
        return Timer(pool, clock, settings.threads, trim=memory.trim)
    return Timer(pool, clock, settings.threads, torch.cuda.synchronize)


def _progress(log: Log) -> Callable[[int, int], None]:
    """Logs a percentage from time to time."""
    logged = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal logged
        if done == of or time.monotonic() - logged >= QUIET_S:
            logged = time.monotonic()
            log(f"operators: {100 * done // of} %")

    return tell


def traced(case: Case, pool: Pool) -> StepTrace:
    """The trace of one call of a case, after a warm-up call."""
    call = case.calls(pool)[0]
    call()
    with StepTracer() as tracer:
        call()
    return tracer.trace


def single_operators(
    cases: Sequence[Sized], pool: Pool, limit: float, log: Log
) -> list[tuple[Sized, StepTrace]]:
    """The cases that torch runs as operators of one kind within ``limit`` bytes, with their traces.

    Others are left out and logged with the reason.
    """
    found = []
    for case in cases:
        if case.bytes > limit:
            log(f"left out: {case.name} takes {case.bytes / 1e6:.0f} MB")
            continue
        try:
            trace = traced(case, pool)
        except (RuntimeError, NotImplementedError) as error:
            log(f"left out: {case.name}: {str(error).splitlines()[0]}")
            continue
        kinds = sorted({call[0] for call in trace.details})
        if len(kinds) == 1:
            found.append((case, trace))
        else:
            log(f"left out: {case.name} is {' and '.join(kinds) or 'nothing'} here")
    return found


def curves(
    cases: Sequence[tuple[Sized, StepTrace]],
    timer: Timer,
    rounds: int,
    progress: Callable[[int, int], None],
    autograd_s: float = 0.0,
) -> dict[str, Curve]:
    """Time the cases; one speed curve for each kind of operator, its points by data type and size.

    ``autograd_s``: seconds that a call of autograd adds to a backward pass; subtracted.
    """
    found: dict[str, tuple[str, dict[str, list[Point]]]] = {}
    timed = measure([case for case, _ in cases], timer, rounds, progress)
    for (case, seconds), (_, trace) in zip(timed, cases, strict=True):
        calls = trace.details
        number = calls.total()
        if getattr(case, "backward", False):
            seconds = max(seconds - autograd_s, MIN_BACKWARD_SHARE * seconds)
        kind, of, dtype, *_ = next(iter(calls))
        flops = sum(call[3] * n for call, n in calls.items()) / number
        size = sum(call[4] * n for call, n in calls.items()) / number
        flops, size, seconds = (float(f"{v:.4g}") for v in (flops, size, seconds / number))
        _, points = found.setdefault(kind, (of, {}))
        points.setdefault(dtype, []).append((flops, size, seconds))
    gc.collect()
    return {
        kind: Curve(of=of, points={dtype: sorted(points) for dtype, points in by_type.items()})
        for kind, (of, by_type) in sorted(found.items())
    }


def profile_of(name: str, found: Measurements, power: Power | None) -> dict[str, Any]:
    """The content of a profile's file; without ``power`` its watts are assumed, energy unknown."""
    content = content_of(name, found, power)
    launch = launch_overhead(ModelledDevice.model_validate(content), found.dispatches)
    alone = "less what their operators take alone, for each operator: modules, autograd and views"
    what = alone if found.accelerator == "cpu" else "for each operator"
    what = f"passes of networks too small to compute, {what}"
    content["launch_overhead"] = measured(launch, found, what)
    return content


def launch_overhead(device: ModelledDevice, dispatches: Sequence[tuple[StepTrace, float]]) -> float:
    """Seconds of dispatch per operator: without the operators' time where that is added to it."""
    calls = sum(trace.details.total() for trace, _ in dispatches)
    seconds = sum(taken for _, taken in dispatches)
    if device.dispatch == "added":
        least = device.launch_overhead.value
        alone = (step_cost(t, device).time_s - least * t.details.total() for t, _ in dispatches)
        seconds -= sum(alone)
    return max(seconds / calls, MIN_LAUNCH_S)


class _Dumper(yaml.SafeDumper):
    """Writes a point, which is a tuple, on one line."""


_Dumper.add_representer(
    tuple, lambda dumper, point: dumper.represent_sequence("tag:yaml.org,2002:seq", point, True)
)


def to_yaml(content: dict[str, Any]) -> str:
    """The file of a profile, which `bench.costs.device_profile.load_device` reads."""
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"{HEAD}{text}"
