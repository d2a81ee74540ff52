"""Predict and measure whole adaptation steps, each in a fresh process, and compare them.

Measurements are kept in a file with machine and date, to compare other profiles with.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from bench.calibration import host as machine
from bench.calibration.measure_case import trace_from_json
from bench.calibration.memory_fit import Run
from bench.calibration.reference_workloads import METHODS, MODELS, chosen
from bench.costs.device_profile import ModelledDevice, load_device, profile_digest
from bench.costs.pricing import MemoryFootprint, step_cost
from bench.errors import BenchError
from bench.io.text_table import aligned
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.probe.timing import lower_quartile

MEDIAN, WORST = 0.15, 0.35
"""Upper bounds of the absolute relative error over all cases, for time and for memory."""


@dataclass
class CheckResults:
    """The results of all cases.

    ``facts``: the machine, by `machine.facts`; ``clock``: wall time or CPU time of the process;
    ``measured``: (model, method, result) of each case; ``skipped``: cases that do not apply;
    ``failed``: cases without a result. Lines of the two are "model method: reason".
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
        of_models = _chosen(models, MODELS, [model for model, _ in held], "models")
        of_methods = _chosen(methods, METHODS, [method for _, method in held], "methods")

        def kept(model: str, method: str) -> bool:
            return model in of_models and method in of_methods

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


def measure(
    cases: Sequence[tuple[str, str]],
    settings: dict[str, Any],
    facts: dict[str, Any],
    run: Run,
    log: Callable[[str], None],
) -> CheckResults:
    """Measure every case, a model and a method, in turn; ``log`` gets a line for each.

    ``settings``: ``batch`` in samples, ``repeats``, ``accelerator`` and ``clock``.
    """
    results = CheckResults(facts, settings["clock"])
    for i, (model, method) in enumerate(cases):
        case = f"{model} {method}"
        log(f"{i + 1}/{len(cases)} {case}")
        try:
            answer = run({"what": case, "model": model, "method": method, **settings})
        except BenchError as error:
            results.failed.append(str(error))
            continue
        if "skipped" in answer:
            results.skipped.append(f"{case}: {answer['skipped']}")
        elif answer["resident_bytes"] <= 0:
            results.failed.append(f"{case}: took no memory above its runtime; use a larger --batch")
        else:
            results.measured.append((model, method, answer))
            if warning := results.contention_warning(case, answer["busy"]):
                log(f"warning: {warning}")
    return results


@dataclass(frozen=True)
class Row:
    """One case: a model under a method.

    ``time_s`` of a step (lower quartile of the repeats) and ``predicted_s``; ``allocated_bytes``:
    live memory at the peak, counted; ``resident_bytes``: what the process held at the peak, above
    its runtime, and ``predicted_bytes``; ``busy``: share of the time in which it had a processor.
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
    """The row of a case; a profile without ``resident_memory`` predicts the allocated bytes."""
    trace = trace_from_json(answer["trace"])
    seconds = lower_quartile(answer["seconds"]), step_cost(trace, device).time_s
    predicted = MemoryFootprint.of(trace).needed_bytes(device)
    sizes = trace.peak_bytes, answer["resident_bytes"], predicted
    return Row(model, method, *seconds, *sizes, answer["busy"])


def table(rows: Sequence[Row]) -> str:
    """The rows as text; times in ms, memory in MB."""
    names = "model method time predicted error allocated resident predicted error"
    cells = [tuple(names.split())]
    for each in rows:
        times = [f"{s * 1e3:.4g} ms" for s in (each.time_s, each.predicted_s)]
        held = (each.allocated_bytes, each.resident_bytes, each.predicted_bytes)
        sizes = [f"{size / 1e6:.4g} MB" for size in held]
        errors = f"{each.time_error:+.0%}", f"{each.memory_error:+.0%}"
        cells.append((each.model, each.method, *times, errors[0], *sizes, errors[1]))
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

    def __str__(self) -> str:
        return (
            f"{self.what}: median absolute error {self.median:.1%} (bar {MEDIAN:.0%}), worst "
            f"{self.worst:.1%} (bar {WORST:.0%}) at {self.where}: "
            f"{'met' if self.met else 'NOT met'}"
        )


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """The verdict on time, then on memory; none without rows."""
    found = []
    for what in ("time", "memory") if rows else ():
        errors = [abs(getattr(each, f"{what}_error")) for each in rows]
        worst = max(errors)
        at = rows[errors.index(worst)]
        found.append(Verdict(what, statistics.median(errors), worst, f"{at.model} {at.method}"))
    return found


@dataclass(frozen=True)
class Report:
    """A check's rows, and the results behind them."""

    rows: list[Row]
    results: CheckResults

    @property
    def met(self) -> bool:
        """Whether all bars are met and no case failed."""
        return not self.results.failed and all(verdict.met for verdict in verdicts(self.rows))

    def __str__(self) -> str:
        lines = [table(self.rows), ""] if self.rows else []
        lines += [f"not applicable: {line}" for line in self.results.skipped]
        lines += [f"failed: {line}" for line in self.results.failed]
        low = [row for row in self.rows if self.results.contention_warning("", row.busy)]
        if low:
            worst = min(low, key=lambda row: row.busy)
            line = self.results.contention_warning(f"{worst.model} {worst.method}", worst.busy)
            lines.append(f"not alone: {len(low)} of {len(self.rows)} cases; {line}")
        return "\n".join([*lines, *map(str, verdicts(self.rows))])


def report(results: CheckResults, device: ModelledDevice) -> Report:
    """Predictions compared with measurements; BenchError if no case was measured or failed."""
    if not results.measured and not results.failed:
        why = (results.skipped or ["no case was asked for"])[0]
        raise BenchError(f"device check: nothing was measured: {why}")
    return Report([row(*case, device) for case in results.measured], results)


def find_device(name: str) -> ModelledDevice:
    """A modelled profile by name or path, first ``NAME.yaml`` in the working folder.

    Raises BenchError if there is none, or if its costs are measured.
    """
    beside = Path(f"{name}.yaml")
    device = load_device(str(beside) if beside.is_file() else name)
    if not isinstance(device, ModelledDevice):
        why = "its costs are measured, there is nothing to predict; name a profile that"
        raise BenchError(f"device {name!r}: {why} 'bench device calibrate' wrote")
    return device


def write_check(path: Path, report: Report, device: ModelledDevice) -> None:
    """Write a check to a JSON file: its rows, and the measurements for `read_check`."""
    results = report.results
    content = {
        "device": device.name,
        "digest": profile_digest(device),
        "machine": results.facts,
        "clock": results.clock,
        "rows": [
            {**asdict(row), "time_error": row.time_error, "memory_error": row.memory_error}
            for row in report.rows
        ],
        "measured": results.measured,
        "skipped": results.skipped,
        "failed": results.failed,
    }
    try:
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--save {path}: {error.strerror}; name another file") from error


def read_check(path: Path) -> CheckResults:
    """The measurements of an earlier check; BenchError if the file is invalid."""
    try:
        text = path.read_text(encoding="utf-8")
        saved = _Saved.model_validate_json(text, strict=True)
    except OSError as error:
        raise BenchError(f"--from {path}: {error.strerror}; check the path") from error
    except ValueError as error:
        raise BenchError(
            f"--from {path}: is no file that 'bench device check --save' wrote ({_why(error)})"
        ) from error
    content = json.loads(text)
    measured = [(model, method, answer) for model, method, answer in content["measured"]]
    return CheckResults(content["machine"], saved.clock, measured, saved.skipped, saved.failed)


def require_same(path: Path, results: CheckResults, device: ModelledDevice) -> None:
    """Raise BenchError if the profile is for another accelerator or number of threads.

    A profile that was not calibrated states neither.
    """
    for what, measured, meant in (
        ("accelerator", results.accelerator, device.accelerator),
        ("threads", results.facts["threads"], device.threads),
    ):
        if meant is not None and measured != meant:
            raise BenchError(
                f"--from {path}: measured with {what} {measured}, but {device.name} has {what} "
                f"{meant}: name a profile with {what} {measured}, or leave --from out"
            )


def _why(error: ValueError) -> str:
    if not isinstance(error, pydantic.ValidationError):
        return "it is no text"
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]


def _known(of: str) -> str:
    if of not in OPERATOR_CLASSES:
        raise ValueError(f"{of!r} is no class of operators")
    return of


def _of_case(line: str) -> str:
    try:
        case_of(line)
    except ValueError:
        raise ValueError("it begins with no case") from None
    return line


Class = Annotated[str, pydantic.AfterValidator(_known)]
Line = Annotated[str, pydantic.AfterValidator(_of_case)]
Amount = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, pydantic.Field(ge=1)]


class _Trace(pydantic.BaseModel):
    """As `trace_to_json` writes it: class, type, operations, bytes and calls; details by kind."""

    operations: list[tuple[Class, str, Amount, Amount, Count]]
    details: list[tuple[str, Class, str, Amount, Amount, Count]]
    peak_bytes: Amount
    resident_bytes: Amount


class _Answer(pydantic.BaseModel):
    trace: _Trace
    seconds: Annotated[list[Positive], pydantic.Field(min_length=1)]
    busy: Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)]
    runtime_bytes: Amount
    resident_bytes: Positive
    parameters: Annotated[int, pydantic.Field(ge=0)]


class _Machine(pydantic.BaseModel):
    """The facts that are read; others are kept unchanged."""

    threads: Count
    accelerator: str | None = None


class _Saved(pydantic.BaseModel):
    """The file; without ``clock`` its seconds are wall time."""

    machine: _Machine
    clock: Literal["wall", "cpu"] = "wall"
    measured: list[tuple[str, str, _Answer]]
    skipped: list[Line]
    failed: list[Line]
