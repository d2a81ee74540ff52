"""From what was measured to the content of a profile's file."""

from itertools import combinations
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch

IDLE_W, THREAD_W = 10.0, 5.0
"""Assumed where no watts are given: power of the idle processor, and of each computing thread."""
ARITHMETIC = 0.7
"""Share of the watts above idle that goes to arithmetic at the peak; the rest goes to memory."""
NO_ENERGY = "no energy was measured: calibrate with --idle-watts and --busy-watts"
MIN_LAUNCH_S = 2e-7


class Power(NamedTuple):
    """Watts of the machine, ``idle`` and ``busy`` with all its threads, and their ``source``.

    ``arithmetic``, ``traffic``: above idle, at the peak of either, where a sensor has ``measured``
    all of them.
    """

    idle: float
    busy: float
    source: str
    measured: bool = False
    arithmetic: Optional[float] = None
    traffic: Optional[float] = None


class Curve(NamedTuple):
    """Points (operations, bytes, seconds) of one kind of operator, of the class ``of``, by type."""

    of: str
    points: Dict[str, List[Tuple[float, float, float]]]


class Footprint(NamedTuple):
    """Resident memory: ``runtime`` bytes at the start, the model, ``worst`` relative error."""

    runtime: float
    stored: float
    step: float
    convolution: float
    added: float
    worst: float


class Measurements(NamedTuple):
    """Everything that a calibration measured.

    ``curves`` by kind of operator; ``dispatches``: traced passes of networks with negligible
    arithmetic, and their seconds; ``memory`` of the machine in total, ``free`` for applications,
    and the last-level ``cache``, in bytes; ``how``: description of the machine and the procedure;
    ``classes`` of operators; ``tool``: what measured.
    """

    curves: Dict[str, Any]
    dispatches: Sequence[Tuple[Any, float]]
    footprint: Footprint
    memory: float
    free: float
    accelerator: str
    threads: int
    date: str
    how: str
    cache: float
    classes: Sequence[str]
    tool: str


def fitted(runtime: float, seen: Sequence[Tuple[float, float, float, float]]) -> Footprint:
    """The footprint with the least relative squared error.

    ``seen``: for each step the bytes stored, added, of the largest convolution, and resident.
    Live memory is resident: ``stored`` and ``step`` are at least 1, the others at least 0.
    """
    rows = torch.tensor([list(row) for row in seen], dtype=torch.float64)
    held = rows[:, 3:]
    parts = torch.cat([rows[:, :3], torch.ones_like(held)], dim=1) / held
    live = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    left = (1 - parts @ live).clamp(min=0.0)
    more = live + _least_squares(parts, left)
    worst = float((parts @ more - 1).abs().max())
    of_stored, of_step, largest, added = (float(value) for value in more)
    return Footprint(runtime, of_stored, of_step, largest, added, worst)


def _least_squares(parts: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The coefficients, none below 0, with the least squared error: of every choice of columns."""
    scale = parts.max(dim=0).values.clamp(min=1e-30)
    columns = parts / scale
    count = columns.shape[1]
    best, least = torch.zeros(count, dtype=torch.float64), float((wanted**2).sum())
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            some = columns[:, list(chosen)]
            gram = some.t() @ some + 1e-12 * torch.eye(size, dtype=torch.float64)
            found = torch.inverse(gram) @ (some.t() @ wanted)
            error = float(((some @ found - wanted) ** 2).sum())
            if float(found.min()) >= 0 and error < least:
                best, least = torch.zeros(count, dtype=torch.float64), error
                best[list(chosen)] = found
    return best / scale


def content_of(name: str, found: Measurements, given: Optional[Power]) -> Dict[str, Any]:
    """The content of a profile's file, with the least `launch_overhead`, to be replaced.

    Without ``given`` its watts are assumed and its energy is unknown.
    """
    power = given or Power(
        IDLE_W,
        IDLE_W + THREAD_W * found.threads,
        f"Not measured: {IDLE_W:g} W idle and {THREAD_W:g} W more for each thread, of "
        f"{found.threads}, are assumed; give --idle-watts and --busy-watts",
    )
    peaks = peak_flops(found.curves)
    bandwidth = peak_bandwidth(found.curves)
    watts, told = power.busy - power.idle, measured_watts if power.measured else estimated
    arithmetic = ARITHMETIC * watts if power.arithmetic is None else power.arithmetic
    traffic = (1 - ARITHMETIC) * watts if power.traffic is None else power.traffic
    spread = f"{power.source}; spread over the measured peaks, 0.7 of it arithmetic"
    if power.measured:
        spread = f"{power.source}; above idle, over the measured peak"
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
            dtype: measured(peak, found, f"the fastest matrix product in {dtype}")
            for dtype, peak in peaks.items()
        },
        "bandwidth": measured(bandwidth, found, _of_copy(found)),
        "memory": measured(found.memory, found, "what the system reports"),
        "memory_for_applications": measured(found.free, found, "what was free"),
        "runtime_memory": measured(runtime, found, "held after a first tiny training step"),
        "launch_overhead": measured(MIN_LAUNCH_S, found, "to be replaced"),
        "power_idle": told(power.idle, power.source),
        "power_budget": told(power.busy, power.source),
        **({} if given else {"energy_unavailable": NO_ENERGY}),
        "energy_per_flop": {
            dtype: told(arithmetic / peak, spread) for dtype, peak in peaks.items()
        },
        "energy_per_byte": told(traffic / bandwidth, spread),
        "efficiency": {of: _shares(of, found, peaks["float32"], bandwidth) for of in found.classes},
        "resident_memory": {
            part: measured(max(getattr(found.footprint, part), 1e-6), found, fit)
            for part in ("stored", "step", "convolution", "added")
        },
        "curves": {
            "source": f"{found.how}.",
            "confidence": "measured",
            "kinds": {
                kind: {"of": curve.of, "points": curve.points}
                for kind, curve in found.curves.items()
            },
        },
    }


def peak_flops(curves: Dict[str, Any]) -> Dict[str, float]:
    """FLOP/s of the fastest matrix product by data type; float32 first."""
    rates: Dict[str, float] = {}
    for curve in curves.values():
        if curve.of == "matmul":
            for dtype, points in curve.points.items():
                fastest = max(flops / seconds for flops, _, seconds in points)
                rates[dtype] = max(rates.get(dtype, 0.0), fastest)
    return {dtype: rates[dtype] for dtype in sorted(rates, key=lambda name: name != "float32")}


def peak_bandwidth(curves: Dict[str, Any]) -> float:
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


def _shares(of: str, found: Measurements, peak: float, bandwidth: float) -> Dict[str, Any]:
    curves = [curve for curve in found.curves.values() if curve.of == of]
    points = [point for curve in curves for point in curve.points.get("float32", ())]
    if not points:
        why = "Judgement: no operator of the class was measured here"
        return {part: estimated(0.1, why) for part in ("flops", "bandwidth")}
    reached = {
        "flops": max(flops / seconds / peak for flops, _, seconds in points),
        "bandwidth": max(size / seconds / bandwidth for _, size, seconds in points),
    }
    what = "the most that the class reaches; curves go before"
    return {
        part: measured(min(max(share, 1e-3), 1.0), found, what) for part, share in reached.items()
    }


def measured(value: float, found: Measurements, what: str) -> Dict[str, Any]:
    """A number with its source."""
    source = f"{found.tool}, {found.date}: {what}."
    return {"value": float(f"{value:.4g}"), "confidence": "measured", "source": source}


def estimated(value: float, source: str) -> Dict[str, Any]:
    """A number that is a judgement, or that the user gave."""
    return {"value": float(f"{value:.4g}"), "confidence": "estimate", "source": f"{source}."}


def measured_watts(value: float, source: str) -> Dict[str, Any]:
    """As `measured`, with the sensor's own source."""
    return {"value": float(f"{value:.4g}"), "confidence": "measured", "source": f"{source}."}
