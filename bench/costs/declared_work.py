"""Steps whose work grows with sizes that a method declares: counted a few times, then known.

A step that adapts to n selected samples does the same calls for every n > 1, and their operations,
bytes and memory grow linearly with n. Counted logs of a few different n give the line; it has to
meet every further one exactly, in whole numbers, before a step is left uncounted. Then the log of
any n is known without counting it. Where a size is 0 or 1 the calls are another pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.counting.step_tracer import DECLARED, Label, Log, StepTrace, tally

Sizes = tuple[int, ...]
Pattern = tuple[int, ...]
"""Of each size whether it is 0, 1 or more (2): the layout of a single row is another."""


@dataclass
class _Line:
    """Logs of one pattern: ``samples`` by sizes; ``slopes`` once they lie on a line."""

    pattern: Pattern
    labels: list[Label]
    samples: dict[Sizes, NDArray[np.float64]] = field(default_factory=dict)
    slopes: NDArray[np.float64] | None = None

    def learn(self, sizes: Sizes, numbers: NDArray[np.float64]) -> None:
        """Take in one more log; a line that it does not lie on is forgotten."""
        self.samples[sizes] = numbers
        known = np.array([self._row(each) for each in self.samples])
        self.slopes = None
        if len(known) <= known.shape[1] or np.linalg.matrix_rank(known) < known.shape[1]:
            return
        logs = np.stack([each.ravel() for each in self.samples.values()])
        slopes = np.rint(np.linalg.lstsq(known, logs, rcond=None)[0])
        if np.array_equal(known @ slopes, logs):
            self.slopes = slopes

    def log(self, sizes: Sizes) -> Log:
        """The log of a step of these sizes."""
        assert self.slopes is not None
        numbers = (np.array(self._row(sizes)) @ self.slopes).reshape(-1, 3)
        rows = zip(self.labels, numbers.tolist(), strict=True)
        return [(label, (flops, size, int(live))) for label, (flops, size, live) in rows]

    def _row(self, sizes: Sequence[int]) -> list[float]:
        """What the slopes are multiplied with: a constant, and the sizes above 1 in the pattern."""
        return [1.0, *(float(n) for n, of in zip(sizes, self.pattern, strict=True) if of == 2)]


class DeclaredWork:
    """What is known of the steps of one kind and shape."""

    def __init__(self) -> None:
        self._lines: dict[Pattern, _Line] = {}
        self._last = StepTrace()
        self._state: Any = None

    def learn(self, sizes: Sizes, log: Log, trace: StepTrace, state: Any) -> None:
        """Take in a counted step; ``state``: what its calls depended on besides, an optimizer's."""
        if state != self._state:
            self._lines.clear()
        self._last, self._state = trace, state
        pattern, labels = _pattern(sizes), [label for label, _ in log]
        line = self._lines.get(pattern)
        if line is None or line.labels != labels:
            line = self._lines[pattern] = _Line(pattern, labels)
        line.learn(sizes, np.array([numbers for _, numbers in log], dtype=np.float64))

    def is_known(self, state: Any) -> bool:
        """Whether a step may begin uncounted."""
        return state == self._state and any(x.slopes is not None for x in self._lines.values())

    def log(self, sizes: Sizes) -> Log | None:
        """The log of a whole step; None if its pattern is not known."""
        line = self._lines.get(_pattern(sizes))
        return None if line is None or line.slopes is None else line.log(sizes)

    def goes_on(self, sizes: Sizes) -> bool:
        """Whether a known pattern begins with these sizes."""
        pattern = _pattern(sizes)
        return any(
            known[: len(pattern)] == pattern
            for known, line in self._lines.items()
            if line.slopes is not None
        )

    def log_until(self, sizes: Sizes) -> Log:
        """The log up to the declaration of the last of these sizes, by which a pattern is left."""
        before = _pattern(sizes[:-1])
        pattern, line = next(
            (known, line)
            for known, line in self._lines.items()
            if line.slopes is not None and known[: len(before)] == before
        )
        log = line.log((*sizes, *[0] * (len(pattern) - len(sizes))))
        places = [i for i, (label, _) in enumerate(log) if label[0] == DECLARED]
        return log[: places[len(sizes) - 1] + 1]

    def trace(self, log: Log, sample: StepTrace | None = None) -> StepTrace:
        """The trace of a log; what it does not hold is that of the last counted step."""
        last = self._last
        made = StepTrace(
            resident_bytes=last.resident_bytes,
            peak_bytes=last.resident_bytes,
            uncounted=set(last.uncounted if sample is None else last.uncounted | sample.uncounted),
            operators_s=last.operators_s,
            counting_s=last.counting_s,
        )
        return tally(made, log)


def _pattern(sizes: Sequence[int]) -> Pattern:
    return tuple(min(size, 2) for size in sizes)
