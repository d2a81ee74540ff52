"""Predict and measure whole adaptation steps, each in a fresh process, and compare them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.calibration import host as machine
from bench.calibration.measure_case import trace_from_json
from bench.calibration.memory_fit import Run
from bench.calibration.reference_workloads import METHODS, MODELS, chosen
from bench.calibration.timing import lower_quartile
from bench.costs.device_profile import ModelledDevice, load_device
from bench.costs.pricing import MemoryFootprint, step_cost
from bench.errors import BenchError
from bench.io.text_table import aligned

MEDIAN, WORST = 0.15, 0.35
"""Upper bounds of the absolute relative error over all cases, for time and for memory."""


@dataclass(frozen=True)
class Request:
    """The measurement to make: names of models and methods, samples in a batch, repeats.

    ``facts``: description of the machine, from `machine.facts`.
    """

    models: Sequence[str]
    methods: Sequence[str]
    batch: int
    repeats: int
    accelerator: str
    facts: dict[str, Any]
    cpu_time: bool = False


@dataclass
class CheckResults:
    """The results of all cases.

    Attributes
    ----------
    measured : (model, method, result) of each case
    skipped : cases that do not apply, with the reason
    failed : cases whose process failed, with the reason
    facts : description of the machine at the time of the measurement
    clock : whether seconds are wall time or CPU time of the process

    A line of ``skipped`` and ``failed`` begins with "model method: ".
    """

    facts: dict[str, Any]
    clock: Literal["wall", "cpu"] = "wall"
    measured: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def accelerator(self) -> str:
        """``cpu`` or ``cuda``; the facts name the accelerator if one was used."""
        return "cuda" if "accelerator" in self.facts else "cpu"

    def contention_warning(self, what: str, busy: float) -> str:
        """`machine.contention_warning` where low utilization means competing processes."""
        tells = self.accelerator == "cpu" and self.clock == "wall"
        return machine.contention_warning(what, busy, self.facts["threads"]) if tells else ""

    def only(self, models: str | None, methods: str | None) -> CheckResults:
        """The cases with these models and methods, as ``a,b``; None selects all.

        Raises BenchError for a name that is unknown or has no case.
        """
        held = [(model, method) for model, method, _ in self.measured]
        held += [case_of(line) for line in (*self.skipped, *self.failed)]
        wanted = (
            _chosen(models, MODELS, [model for model, _ in held], "models"),
            _chosen(methods, METHODS, [method for _, method in held], "methods"),
        )

        def kept(model: str, method: str) -> bool:
            return model in wanted[0] and method in wanted[1]

        return replace(
            self,
            measured=[case for case in self.measured if kept(*case[:2])],
            skipped=[line for line in self.skipped if kept(*case_of(line))],
            failed=[line for line in self.failed if kept(*case_of(line))],
        )


def case_of(line: str) -> tuple[str, str]:
    """Model and method of a line of ``skipped`` or ``failed``; ValueError if it names none."""
    model, method = line.partition(": ")[0].split()
    return model, method


def _chosen(given: str | None, known: Iterable[str], held: Sequence[str], what: str) -> list[str]:
    there = list(dict.fromkeys(held))
    if given is None:
        return there
    names = chosen(given, list(dict.fromkeys([*known, *there])), what)
    for name in names:
        if name not in there:
            raise BenchError(
                f"--{what} {name}: the file of --from has no such case, but {', '.join(there)}: "
                "name one of these, or leave --from out"
            )
    return names


def measure(request: Request, run: Run, log: Callable[[str], None]) -> CheckResults:
    """Measure every case in turn; ``log`` gets a line for each."""
    results = CheckResults(request.facts, "cpu" if request.cpu_time else "wall")
    cases = [(model, method) for model in request.models for method in request.methods]
    for i, (model, method) in enumerate(cases):
        case = f"{model} {method}"
        log(f"{i + 1}/{len(cases)} {case}")
        try:
            answer = run(
                {
                    "what": case,
                    "model": model,
                    "method": method,
                    "batch": request.batch,
                    "repeats": request.repeats,
                    "accelerator": request.accelerator,
                    "clock": results.clock,
                }
            )
        except BenchError as error:
            results.failed.append(str(error))
            continue
        if "skipped" in answer:
            results.skipped.append(f"{case}: {answer['skipped']}")
        elif answer["resident_bytes"] <= 0:
            results.failed.append(f"{case}: took no memory above its runtime; use a larger --batch")
        else:
            results.measured.append((model, method, answer))
            warning = results.contention_warning(case, answer["busy"])
            if warning:
                log(f"warning: {warning}")
    return results


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
    """The row of a case from the result of its process.

    A profile without ``resident_memory`` predicts the allocated bytes.
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
    """The absolute errors of time or memory over all cases, compared with the bars."""

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
    """The verdict on time, then on memory; ``rows`` must not be empty."""
    found = []
    for what, errors in (
        ("time", [abs(each.time_error) for each in rows]),
        ("memory", [abs(each.memory_error) for each in rows]),
    ):
        worst = max(errors)
        at = rows[errors.index(worst)]
        found.append(Verdict(what, statistics.median(errors), worst, f"{at.model} {at.method}"))
    return found


def rows_to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows with their errors, for a file."""
    return [
        {**asdict(each), "time_error": each.time_error, "memory_error": each.memory_error}
        for each in rows
    ]


@dataclass(frozen=True)
class Report:
    """A check's rows and verdicts, and the results behind them."""

    rows: list[Row]
    verdicts: list[Verdict]
    results: CheckResults

    @property
    def met(self) -> bool:
        """Whether all bars are met and no case failed."""
        return not self.results.failed and all(verdict.met for verdict in self.verdicts)

    @property
    def text(self) -> str:
        """The report as text."""
        lines = [table(self.rows), ""] if self.rows else []
        lines += [f"not applicable: {line}" for line in self.results.skipped]
        lines += [f"failed: {line}" for line in self.results.failed]
        lines += self._contention()
        return "\n".join([*lines, *(verdict.line for verdict in self.verdicts)])

    def _contention(self) -> list[str]:
        """A line on the case with the lowest CPU utilization, if any was too low."""
        low = [row for row in self.rows if self.results.contention_warning("", row.busy)]
        if not low:
            return []
        worst = min(low, key=lambda row: row.busy)
        line = self.results.contention_warning(f"{worst.model} {worst.method}", worst.busy)
        return [f"not alone: {len(low)} of {len(self.rows)} cases; {line}"]


def report(results: CheckResults, device: ModelledDevice) -> Report:
    """Predictions of the profile compared with the measured cases.

    Without a measured case there are no verdicts; BenchError if none failed either.
    """
    if not results.measured and not results.failed:
        why = (results.skipped or ["no case was asked for"])[0]
        raise BenchError(f"device check: nothing was measured: {why}")
    rows = [row(*case, device) for case in results.measured]
    return Report(rows, verdicts(rows) if rows else [], results)


def find_device(name: str) -> ModelledDevice:
    """A modelled profile by name or path, or ``NAME.yaml`` in the working folder by its name.

    Raises BenchError if there is none, or if its costs are measured.
    """
    beside = Path(f"{name}.yaml")
    device = load_device(str(beside) if beside.is_file() else name)
    if not isinstance(device, ModelledDevice):
        raise BenchError(
            f"device {name!r}: its costs are measured, there is nothing to predict; name a profile "
            "that 'bench device calibrate' wrote"
        )
    return device
