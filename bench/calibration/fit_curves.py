"""From timed cases to curves: each call is counted by the tracer that will count real steps."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bench.calibration.operand_pool import Pool
from bench.calibration.timing import Case, Timer, measure
from bench.costs.speed_curves import Curve, Point
from bench.costs.step_tracer import StepTrace, StepTracer

Say = Callable[[str], None]

LEAST = 0.05
"""Share of a backward pass that is left when autograd's own time is taken off."""


class Sized(Case, Protocol):
    """A case that says how much memory its operands take."""

    @property
    def bytes(self) -> int:
        """Bytes of the operands."""


def counted(case: Case, pool: Pool) -> StepTrace:
    """One call of a case, counted after one that warms up."""
    call = case.calls(pool)[0]
    call()
    with StepTracer() as tracer:
        call()
    return tracer.trace


def usable(
    cases: Sequence[Sized], pool: Pool, limit: float, say: Say
) -> list[tuple[Sized, StepTrace]]:
    """The cases that are operators of one kind and fit ``limit`` bytes, with what they count.

    What torch does not run here, or in several operators, is left out, and said.
    """
    found = []
    for case in cases:
        if case.bytes > limit:
            say(f"left out: {case.name} takes {case.bytes / 1e6:.0f} MB")
            continue
        try:
            trace = counted(case, pool)
        except (RuntimeError, NotImplementedError) as error:
            say(f"left out: {case.name}: {str(error).splitlines()[0]}")
            continue
        kinds = sorted({call[0] for call in trace.details})
        if len(kinds) == 1:
            found.append((case, trace))
        else:
            say(f"left out: {case.name} is {' and '.join(kinds) or 'nothing'} here")
    return found


def curves(
    cases: Sequence[tuple[Sized, StepTrace]],
    timer: Timer,
    rounds: int,
    progress: Callable[[int, int], None],
    autograd_s: float = 0.0,
) -> dict[str, Curve]:
    """Time the cases; a curve for each kind of operator, its points by data type and size.

    ``autograd_s``: seconds that a call of autograd adds to a backward pass, to be taken off.
    """
    traces = {id(case): trace for case, trace in cases}
    points: dict[str, dict[str, Any]] = {}
    for case, seconds in measure([case for case, _ in cases], timer, rounds, progress):
        calls = traces[id(case)].details
        number = calls.total()
        if getattr(case, "backward", False):
            seconds = max(seconds - autograd_s, LEAST * seconds)
        kind, of, dtype, *_ = next(iter(calls))
        flops = sum(call[3] * n for call, n in calls.items()) / number
        size = sum(call[4] * n for call, n in calls.items()) / number
        curve = points.setdefault(kind, {"of": of, "points": {}})
        curve["points"].setdefault(dtype, []).append(_rounded(flops, size, seconds / number))
    gc.collect()
    return {kind: _curve(points[kind]) for kind in sorted(points)}


def _curve(values: dict[str, Any]) -> Curve:
    by_type = {dtype: sorted(points) for dtype, points in values["points"].items()}
    return Curve(of=values["of"], points=by_type)


def _rounded(*values: float) -> Point:
    flops, size, seconds = (float(f"{value:.4g}") for value in values)
    return flops, size, seconds
