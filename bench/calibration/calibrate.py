"""The content of a calibrated device profile: peaks, shares, curves, dispatch and memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bench.calibration.memory_fit import Footprint
from bench.costs.device_profile import ModelledDevice
from bench.costs.operator_kinds import OPERATOR_CLASSES
from bench.costs.pricing import step_cost
from bench.costs.speed_curves import Curve
from bench.costs.step_tracer import StepTrace

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
        seconds -= sum(
            step_cost(trace, device).time_s - least * trace.details.total()
            for trace, _ in dispatches
        )
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
    return {
        "value": float(f"{value:.4g}"),
        "confidence": "measured",
        "source": f"bench device calibrate, {found.date}: {what}.",
    }


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
