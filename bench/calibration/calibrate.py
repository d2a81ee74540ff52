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
from bench.calibration import optimizer_steps as steps
from bench.calibration.measure_case import measure_fresh
from bench.calibration.memory_fit import NETWORKS, QUICK_NETWORKS, Footprint, measure_footprint
from bench.calibration.operators import (
    QUICK,
    SMALLEST,
    Operator,
    Sizes,
    convolutions,
    large_copy,
    operators,
)
from bench.calibration.timing import Case, Clock, Pool, Timer, cache_bytes, measure
from bench.costs import process_memory as memory
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import step_cost
from bench.costs.speed_curves import Curve, Point
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.errors import BenchError
from bench.operators.operator_kinds import OPERATOR_CLASSES

Sized = Operator | steps.OptimizerStep
Log = Callable[[str], None]
"""Gets progress, a line at a time."""

POOL_BYTES = 2**28
"""Size of the block that holds the operands, where memory suffices."""
LARGEST = 0.25
"""Largest share of the free memory for the operands of one case."""
SHORT_ROUNDS = 5
"""Minimum number of rounds for calls that take microseconds."""
QUIET_S = 10.0
"""Minimum seconds between two lines of progress."""
MIN_BACKWARD_SHARE = 0.05
"""Minimum share of a backward pass that remains after subtracting autograd's own time."""

IDLE_W, THREAD_W = 10.0, 5.0
"""Assumed where no watts are given: power of the idle processor, and of each computing thread."""
ARITHMETIC = 0.7
"""Share of the watts above idle that goes to arithmetic at the peak; the rest goes to memory."""
NO_ENERGY = "no energy was measured: calibrate with --idle-watts and --busy-watts"
MIN_LAUNCH_S = 2e-7

HEAD = """\
# Written by 'bench device calibrate'. Points of curves are [operations, bytes, seconds] of a call.
# Watts are assumptions unless --idle-watts and --busy-watts were given; with assumptions a run
# records no energy (energy_unavailable).
"""


@dataclass(frozen=True)
class Power:
    """Watts of the machine, ``idle`` and ``busy`` with all its threads, and their ``source``."""

    idle: float
    busy: float
    source: str


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
        cases += [*operators(each), *convolutions(each), *steps.optimizer_steps(each)]
    cases += large_copy(sizes[-1], timer.pool)
    with torch.no_grad():
        log(f"operators: counting {len(cases)}")
        chosen = single_operators(cases, timer.pool, LARGEST * free, log)
        few = max(settings.rounds, SHORT_ROUNDS)
        autograd_s = 0.0
        if settings.accelerator == "cpu":  # on an accelerator it overlaps with the kernels
            ((_, autograd_s),) = measure([steps.AutogradCall()], timer, few)
        measured = curves(chosen, timer, settings.rounds, _progress(log), autograd_s)
        dispatches = [
            (traced(case, timer.pool), seconds)
            for case, seconds in measure(steps.DISPATCHES, timer, few)
        ]
    how = (
        f"{machine.sentence(known)}; {'processor' if settings.cpu_time else 'wall'} time, lower "
        f"quartile of {settings.rounds} interleaved rounds; each thread had a processor "
        f"{timer.busy:.0%} of the time"
    )
    used = settings.accelerator, settings.threads
    cache = timer.pool.cache_bytes
    found = Measurements(
        measured, dispatches, footprint, total, free, *used, known["date"], how, cache
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


@dataclass(frozen=True)
class Measurements:
    """Everything that a calibration measured.

    ``curves`` by kind of operator; ``dispatches``: traced passes of networks with negligible
    arithmetic, and their seconds; ``memory`` of the machine in total, ``free`` for applications,
    and the last-level ``cache``, in bytes; ``how``: description of the machine and the procedure.
    """

    curves: dict[str, Curve]
    dispatches: Sequence[tuple[StepTrace, float]]
    footprint: Footprint
    memory: float
    free: float
    accelerator: str
    threads: int
    date: str
    how: str
    cache: float


def profile_of(name: str, found: Measurements, power: Power | None) -> dict[str, Any]:
    """The content of a profile's file; without ``power`` its watts are assumed, energy unknown."""
    content = _content(name, found, power)
    launch = launch_overhead(ModelledDevice.model_validate(content), found.dispatches)
    alone = "less what their operators take alone, for each operator: modules, autograd and views"
    what = alone if found.accelerator == "cpu" else "for each operator"
    what = f"passes of networks too small to compute, {what}"
    content["launch_overhead"] = _measured(launch, found, what)
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


def _content(name: str, found: Measurements, given: Power | None) -> dict[str, Any]:
    power = given or Power(
        IDLE_W,
        IDLE_W + THREAD_W * found.threads,
        f"Not measured: {IDLE_W:g} W idle and {THREAD_W:g} W more for each thread, of "
        f"{found.threads}, are assumed; give --idle-watts and --busy-watts",
    )
    peaks = peak_flops(found.curves)
    bandwidth = peak_bandwidth(found.curves)
    watts = power.busy - power.idle
    spread = f"{power.source}; spread over the measured peaks, 0.7 of it arithmetic"
    fit = f"fitted to steps of synthetic networks, worst error {found.footprint.worst:.0%}"
    runtime = max(found.footprint.runtime, 1.0)
    return {
        "name": name,
        "title": f"{name}: {found.accelerator}, {found.threads} threads, calibrated",
        "cost": "modelled",
        "accelerator": found.accelerator,
        "threads": found.threads,
        "dispatch": "added" if found.accelerator == "cpu" else "overlapped",
        "flops": {
            dtype: _measured(peak, found, f"the fastest matrix product in {dtype}")
            for dtype, peak in peaks.items()
        },
        "bandwidth": _measured(bandwidth, found, _of_copy(found)),
        "memory": _measured(found.memory, found, "what the system reports"),
        "memory_for_applications": _measured(found.free, found, "what was free"),
        "runtime_memory": _measured(runtime, found, "held after a first tiny training step"),
        "launch_overhead": _measured(MIN_LAUNCH_S, found, "to be replaced"),
        "power_idle": _estimated(power.idle, power.source),
        "power_budget": _estimated(power.busy, power.source),
        **({} if given else {"energy_unavailable": NO_ENERGY}),
        "energy_per_flop": {
            dtype: _estimated(ARITHMETIC * watts / peak, spread) for dtype, peak in peaks.items()
        },
        "energy_per_byte": _estimated((1 - ARITHMETIC) * watts / bandwidth, spread),
        "efficiency": {
            of: _shares(of, found, peaks["float32"], bandwidth) for of in OPERATOR_CLASSES
        },
        "resident_memory": {
            part: _measured(max(getattr(found.footprint, part), 1e-6), found, fit)
            for part in ("stored", "step", "convolution", "added")
        },
        "curves": {
            "source": f"{found.how}.",
            "confidence": "measured",
            "kinds": {kind: curve.model_dump() for kind, curve in found.curves.items()},
        },
    }


def peak_flops(curves: dict[str, Curve]) -> dict[str, float]:
    """FLOP/s of the fastest matrix product by data type; float32 first."""
    rates: dict[str, float] = {}
    for curve in curves.values():
        if curve.of == "matmul":
            for dtype, points in curve.points.items():
                fastest = max(flops / seconds for flops, _, seconds in points)
                rates[dtype] = max(rates.get(dtype, 0.0), fastest)
    return {dtype: rates[dtype] for dtype in sorted(rates, key=lambda name: name != "float32")}


def peak_bandwidth(curves: dict[str, Curve]) -> float:
    """Bytes/s of the largest copy."""
    _, size, seconds = max(curves["copy_"].points["float32"], key=lambda point: point[1])
    return size / seconds


def _of_copy(found: Measurements) -> str:
    """The copy from which the bandwidth was computed, and whether a cache could hold it."""
    size = max(size for _, size, _ in found.curves["copy_"].points["float32"])
    copied = f"a copy of {size / 1e6:.4g} MB, read and written"
    cache = f"the last cache of {found.cache / 1e6:.4g} MB"
    if size > 2 * found.cache:
        return f"{copied}, more than twice {cache}"
    return f"{copied}, of which {cache} may hold a part"


def _shares(of: str, found: Measurements, peak: float, bandwidth: float) -> dict[str, Any]:
    curves = [curve for curve in found.curves.values() if curve.of == of]
    points = [point for curve in curves for point in curve.points.get("float32", ())]
    if not points:
        why = "Judgement: no operator of the class was measured here"
        return {part: _estimated(0.1, why) for part in ("flops", "bandwidth")}
    reached = {
        "flops": max(flops / seconds / peak for flops, _, seconds in points),
        "bandwidth": max(size / seconds / bandwidth for _, size, seconds in points),
    }
    what = "the most that the class reaches; curves go before"
    return {
        part: _measured(min(max(share, 1e-3), 1.0), found, what) for part, share in reached.items()
    }


def _measured(value: float, found: Measurements, what: str) -> dict[str, Any]:
    source = f"bench device calibrate, {found.date}: {what}."
    return {"value": float(f"{value:.4g}"), "confidence": "measured", "source": source}


def _estimated(value: float, source: str) -> dict[str, Any]:
    return {"value": float(f"{value:.4g}"), "confidence": "estimate", "source": f"{source}."}


class _Dumper(yaml.SafeDumper):
    """Writes a point, which is a tuple, on one line."""


_Dumper.add_representer(
    tuple, lambda dumper, point: dumper.represent_sequence("tag:yaml.org,2002:seq", point, True)
)


def to_yaml(content: dict[str, Any]) -> str:
    """The file of a profile, which `bench.costs.device_profile.load_device` reads."""
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return f"{HEAD}{text}"
