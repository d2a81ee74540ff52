"""Predict and measure whole adaptation steps, each in a fresh process, and compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.device.calibration import compare
from bench.device.calibration.compare import Row, Verdict
from bench.device.profile import ModelledDevice, load_device, profile_digest
from bench.errors import BenchError

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a request to a fresh process and gives its answer, as `child.ask` does."""


@dataclass(frozen=True)
class Request:
    """What is measured, and how: names of models and methods, samples in a batch, repeats."""

    models: Sequence[str]
    methods: Sequence[str]
    batch: int
    repeats: int
    accelerator: str
    cpu_time: bool = False


@dataclass
class Answers:
    """What the processes answered.

    Attributes
    ----------
    measured : (model, method, answer) of each case
    skipped : cases that do not apply, with the reason
    failed : cases whose process failed, with the reason
    """

    measured: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def measure(request: Request, ask: Ask, say: Callable[[str], None]) -> Answers:
    """Measure every case, one after another; ``say`` gets a line for each."""
    answers = Answers()
    cases = [(model, method) for model in request.models for method in request.methods]
    for i, (model, method) in enumerate(cases):
        case = f"{model} {method}"
        say(f"{i + 1}/{len(cases)} {case}")
        try:
            answer = ask(
                {
                    "what": case,
                    "model": model,
                    "method": method,
                    "batch": request.batch,
                    "repeats": request.repeats,
                    "accelerator": request.accelerator,
                    "clock": "cpu" if request.cpu_time else "wall",
                }
            )
        except BenchError as error:
            answers.failed.append(str(error))
            continue
        if "skipped" in answer:
            answers.skipped.append(f"{case}: {answer['skipped']}")
        else:
            answers.measured.append((model, method, answer))
    return answers


@dataclass(frozen=True)
class Report:
    """A check's rows, its verdicts, and what was left out or failed."""

    rows: list[Row]
    verdicts: list[Verdict]
    answers: Answers

    @property
    def met(self) -> bool:
        """Whether all bars are met and no case failed."""
        return not self.answers.failed and all(verdict.met for verdict in self.verdicts)

    @property
    def text(self) -> str:
        """The report for people."""
        lines = [compare.table(self.rows), ""] if self.rows else []
        lines += [f"not applicable: {line}" for line in self.answers.skipped]
        lines += [f"failed: {line}" for line in self.answers.failed]
        return "\n".join([*lines, *(verdict.line for verdict in self.verdicts)])


def report(answers: Answers, device: ModelledDevice) -> Report:
    """What the profile predicts for the cases that were measured.

    Raises BenchError if there are none.
    """
    if not answers.measured:
        why = (answers.failed or answers.skipped or ["no case was asked for"])[0]
        raise BenchError(f"device check: nothing was measured: {why}")
    rows = [compare.row(*case, device) for case in answers.measured]
    return Report(rows, compare.verdicts(rows), answers)


def find_device(name: str) -> ModelledDevice:
    """A profile with numbers by name or path; also ``NAME.yaml`` in this folder by its name.

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


def write(path: Path, report: Report, device: ModelledDevice, facts: dict[str, Any]) -> None:
    """Keep a check in a JSON file: rows, and the measurements as `read` takes them."""
    content = {
        "device": device.name,
        "digest": profile_digest(device),
        "machine": facts,
        "rows": compare.as_json(report.rows),
        "measured": report.answers.measured,
        "skipped": report.answers.skipped,
        "failed": report.answers.failed,
    }
    try:
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"--save {path}: {error.strerror}; name another file") from error


def read(path: Path) -> Answers:
    """The measurements of an earlier check; BenchError if the file holds none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        measured = [(model, method, answer) for model, method, answer in content["measured"]]
        return Answers(measured, list(content["skipped"]), list(content["failed"]))
    except OSError as error:
        raise BenchError(f"--from {path}: {error.strerror}; check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BenchError(
            f"--from {path}: is no file that 'bench device check --save' wrote"
        ) from error
