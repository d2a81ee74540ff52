"""What a profile predicts beside what was measured, case by case, and whether the bars are met."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.calibration.measure_case import trace_from_json
from bench.calibration.timing import lower_quartile
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import MemoryFootprint, step_cost
from bench.io.text_table import aligned

MEDIAN, WORST = 0.15, 0.35
"""Bars of the absolute relative error, over all cases; for time and for memory."""


@dataclass(frozen=True)
class Row:
    """One case: a model under a method.

    Attributes
    ----------
    time_s, predicted_s : of a step, measured (lower quartile of the repeats) and predicted
    allocated_bytes : live memory at the peak, counted
    resident_bytes, predicted_bytes : what the process held at the peak, above its runtime
    busy : share of the measured time in which the process had a processor
    """

    model: str
    method: str
    time_s: float
    predicted_s: float
    allocated_bytes: float
    resident_bytes: float
    predicted_bytes: float
    busy: float

    @property
    def time_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_s / self.time_s - 1

    @property
    def memory_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_bytes / self.resident_bytes - 1


def row(model: str, method: str, answer: dict[str, Any], device: ModelledDevice) -> Row:
    """The row of a case from what its process answered.

    A profile without ``resident_memory`` predicts what is allocated.
    """
    trace = trace_from_json(answer["trace"])
    return Row(
        model,
        method,
        lower_quartile(answer["seconds"]),
        step_cost(trace, device).time_s,
        trace.peak_bytes,
        answer["resident_bytes"],
        MemoryFootprint.of(trace).needed_bytes(device),
        answer["busy"],
    )


HEAD = ("model", "method", "time", "predicted", "error", "allocated", "resident", "predicted",
        "error")  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """The rows as text; times in ms, memory in MB."""
    cells = [HEAD]
    for each in rows:
        cells.append(
            (
                each.model,
                each.method,
                f"{each.time_s * 1e3:.4g} ms",
                f"{each.predicted_s * 1e3:.4g} ms",
                f"{each.time_error:+.0%}",
                f"{each.allocated_bytes / 1e6:.4g} MB",
                f"{each.resident_bytes / 1e6:.4g} MB",
                f"{each.predicted_bytes / 1e6:.4g} MB",
                f"{each.memory_error:+.0%}",
            )
        )
    return aligned(cells, left=2)


@dataclass(frozen=True)
class Verdict:
    """The absolute errors of time or memory over all cases, and whether they are small enough."""

    what: str
    median: float
    worst: float
    where: str

    @property
    def met(self) -> bool:
        """Whether both bars are met."""
        return self.median <= MEDIAN and self.worst <= WORST

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return (
            f"{self.what}: median absolute error {self.median:.1%} (bar {MEDIAN:.0%}), worst "
            f"{self.worst:.1%} (bar {WORST:.0%}) at {self.where}: "
            f"{'met' if self.met else 'NOT met'}"
        )


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Of time, then of memory; ``rows`` are not empty."""
    found = []
    for what, errors in (
        ("time", [abs(each.time_error) for each in rows]),
        ("memory", [abs(each.memory_error) for each in rows]),
    ):
        worst = max(errors)
        at = rows[errors.index(worst)]
        found.append(Verdict(what, statistics.median(errors), worst, f"{at.model} {at.method}"))
    return found


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with their errors, for a file."""
    return [
        {**asdict(each), "time_error": each.time_error, "memory_error": each.memory_error}
        for each in rows
    ]
