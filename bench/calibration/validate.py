"""Predict and measure whole adaptation steps, each in a fresh process, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.calibration import check_table as compare
from bench.calibration import host as machine
from bench.calibration.check_table import Row, Verdict
from bench.calibration.reference_workloads import METHODS, MODELS, chosen
from bench.costs.device_profile import ModelledDevice, load_device
from bench.errors import BenchError

Ask = Callable[[dict[str, Any]], dict[str, Any]]
"""Sends a request to a fresh process and gives its answer, as `child.ask` does."""


@dataclass(frozen=True)
class Request:
    """What is measured, and how: names of models and methods, samples in a batch, repeats.

    ``facts``: of the machine, as `machine.facts` gives them.
    """

    models: Sequence[str]
    methods: Sequence[str]
    batch: int
    repeats: int
    accelerator: str
    facts: dict[str, Any]
    cpu_time: bool = False


@dataclass
class Answers:
    """What the processes answered.

    Attributes
    ----------
    measured : (model, method, answer) of each case
    skipped : cases that do not apply, with the reason
    failed : cases whose process failed, with the reason
    facts : of the machine on which it was measured, on that day
    clock : whether seconds are of the wall, or of the process on a cpu

    A line of ``skipped`` and ``failed`` begins with "model method: ".
    """

    facts: dict[str, Any]
    clock: Literal["wall", "cpu"] = "wall"
    measured: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def accelerator(self) -> str:
        """``cpu`` or ``cuda``; facts name an accelerator where there was one."""
        return "cuda" if "accelerator" in self.facts else "cpu"

    def crowded(self, what: str, busy: float) -> str:
        """`machine.crowded`, where a low share says that others were at work."""
        tells = self.accelerator == "cpu" and self.clock == "wall"
        return machine.crowded(what, busy, self.facts["threads"]) if tells else ""

    def only(self, models: str | None, methods: str | None) -> Answers:
        """Those of the cases that are named, as ``a,b``; None is all.

        Raises BenchError for a name that is unknown, or that no case has.
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


def measure(request: Request, ask: Ask, say: Callable[[str], None]) -> Answers:
    """Measure every case, one after another; ``say`` gets a line for each."""
    answers = Answers(request.facts, "cpu" if request.cpu_time else "wall")
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
                    "clock": answers.clock,
                }
            )
        except BenchError as error:
            answers.failed.append(str(error))
            continue
        if "skipped" in answer:
            answers.skipped.append(f"{case}: {answer['skipped']}")
        elif answer["resident_bytes"] <= 0:
            answers.failed.append(f"{case}: took no memory above its runtime; use a larger --batch")
        else:
            answers.measured.append((model, method, answer))
            warning = answers.crowded(case, answer["busy"])
            if warning:
                say(f"warning: {warning}")
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
        lines += self._crowded()
        return "\n".join([*lines, *(verdict.line for verdict in self.verdicts)])

    def _crowded(self) -> list[str]:
        """A line on the case that was the least alone, if one was not."""
        low = [row for row in self.rows if self.answers.crowded("", row.busy)]
        if not low:
            return []
        worst = min(low, key=lambda row: row.busy)
        line = self.answers.crowded(f"{worst.model} {worst.method}", worst.busy)
        return [f"not alone: {len(low)} of {len(self.rows)} cases; {line}"]


def report(answers: Answers, device: ModelledDevice) -> Report:
    """What the profile predicts for the cases that were measured.

    Without one there are no verdicts. Raises BenchError if nothing failed either.
    """
    if not answers.measured and not answers.failed:
        why = (answers.skipped or ["no case was asked for"])[0]
        raise BenchError(f"device check: nothing was measured: {why}")
    rows = [compare.row(*case, device) for case in answers.measured]
    return Report(rows, compare.verdicts(rows) if rows else [], answers)


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
