"""The file of a check: measurements with machine and date, to compare other profiles with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from bench.calibration.validate import CheckResults, Report, case_of
from bench.costs.device_profile import ModelledDevice, profile_digest
from bench.costs.operator_kinds import OPERATOR_CLASSES
from bench.errors import BenchError


def write(path: Path, report: Report, device: ModelledDevice) -> None:
    """Write a check to a JSON file: its rows, and the measurements for `read`."""
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


def read(path: Path) -> CheckResults:
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
    """As `measured_case` gives it."""

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
