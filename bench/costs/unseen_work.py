"""Work that the counting of operators does not see, found by the CPU time that it takes.

numpy, extensions, plain Python and other threads do not pass the dispatcher that
`bench.costs.step_tracer` listens to. What they do shows in the CPU time of the process. A step
may take several times the time of its operators, and an allowance for Python that is as slow as the
machine: the time that counting the step took. Reading data is left out: it is no work of the
device. Only what is far beyond that is reported, so that a shared or slow machine raises no alarm;
work that is smaller is not seen.
"""

from __future__ import annotations

from collections import defaultdict

import torch

from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError
from bench.io.fetch_clock import cpu_clocks

OPERATORS, PYTHON = 3.0, 3.0
"""Times the seconds of the operators, and of counting them, that a step may take."""
SLACK_S, ALONE_S = 0.02, 1.0
"""Seconds on top for each step; and for a single one, in which modules may be imported."""
OTHERS_SHARE, OTHERS_S = 0.5, 0.1
"""Share of the CPU time of a window, and seconds, from which on other threads are refused."""


class UnseenWork:
    """Compares the CPU time of steps with that of their operators, over a run."""

    def __init__(self) -> None:
        self._excess: dict[str, list[float]] = defaultdict(list)
        self._window = self._step = _now()

    def open_window(self) -> None:
        """A window opens."""
        self._window = _now()

    def begin(self) -> None:
        """A step, section or prediction begins; its tracer has been made."""
        self._step = _now()

    def end(self, kind: str, trace: StepTrace, traced: bool) -> None:
        """It ended; BenchError if other threads did most of the window's work so far.

        ``trace``: of this step where it was ``traced``, else of one like it.
        """
        process, _ = _since(self._step)
        if traced:
            process -= trace.counting_s
        operators = trace.operators_s * torch.get_num_threads()
        may = OPERATORS * operators + PYTHON * (trace.counting_s + trace.spared_s) + SLACK_S
        self._excess[kind].append(process - may)
        self._refuse_threads(kind)

    def marks(self) -> set[str]:
        """What is to be said of the kinds of steps that took far more than their operators."""
        return {
            f"work outside torch's operators ({kind})"
            for kind, excess in self._excess.items()
            if _is_clear(excess)
        }

    def _refuse_threads(self, kind: str) -> None:
        process, here = _since(self._window)
        if torch.get_num_threads() > 1:
            return  # operators have threads of their own
        if process - here > max(OTHERS_SHARE * process, OTHERS_S):
            raise BenchError(
                f"other threads took {process - here:.1f} of {process:.1f} s of CPU time up to a "
                f"{kind} step, and what they compute is not charged: compute in the thread that "
                "runs adapt"
            )


def _is_clear(excess: list[float]) -> bool:
    """Whether the steps exceed what they may on average; the worst is left out, but if alone."""
    if len(excess) == 1:
        return excess[0] > ALONE_S
    return sum(excess) - max(excess) > 0


def _now() -> tuple[float, float]:
    return cpu_clocks()


def _since(then: tuple[float, float]) -> tuple[float, float]:
    """CPU seconds of the process, and of this thread alone."""
    process, here = _now()
    return process - then[0], here - then[1]
