"""Steps whose work grows with sizes that a method declares: counted a few times, then known.

A step that adapts to n selected samples does the same calls for every n > 1, and their operations,
bytes and memory grow linearly with n. Counted logs of a few different n give the line; it has to
meet every further one exactly, in whole numbers, before a step is left uncounted. Then the log of
any n is known without counting it. Where a size is 0 or 1 the calls are another pattern.

Logs of whole steps alone give the line: in one that is counted from the middle on, memory that was
taken before and is released unused is not seen to go, so that a few bytes too many stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.costs.step_tracer import DECLARED, TURNS, Label, Log, StepTrace, tally
from bench.errors import BenchError

Sizes = tuple[int, ...]
AFRESH = 3
"""Steps that are counted whole after one that turned out, in the middle, not to be known."""

Pattern = tuple[int, ...]
"""Of each size whether it is 0, 1 or more (2): the layout of a single row is another."""


@dataclass
class _Line:
    """Logs of one pattern: ``samples`` by sizes; ``slopes`` once they lie on a line.

    ``repeated``: sizes that gave one log twice, which is theirs whatever the others do.
    """

    pattern: Pattern
    labels: list[Label]
    samples: dict[Sizes, NDArray[np.float64]] = field(default_factory=dict)
    slopes: NDArray[np.float64] | None = None
    repeated: set[Sizes] = field(default_factory=set)
    _alike: tuple[list[int], list[int]] | None = None

    def learn(self, sizes: Sizes, numbers: NDArray[np.float64]) -> None:
        """Take in one more log; a line that it does not lie on is forgotten."""
        if sizes in self.samples and np.array_equal(self.samples[sizes], numbers):
            self.repeated.add(sizes)
        else:
            self.repeated.discard(sizes)
        self.samples[sizes], self._alike = numbers, None
        known = np.array([self._row(each) for each in self.samples])
        self.slopes = None
        if len(known) <= known.shape[1] or np.linalg.matrix_rank(known) < known.shape[1]:
            return
        logs = np.stack([each.ravel() for each in self.samples.values()])
        slopes = np.rint(np.linalg.lstsq(known, logs, rcond=None)[0])
        if np.array_equal(known @ slopes, logs):
            self.slopes = slopes

    def knows(self, sizes: Sizes) -> bool:
        """Whether the log of a step of these sizes is known."""
        return self.slopes is not None or sizes in self.repeated

    def log(self, sizes: Sizes) -> Log:
        """The log of a step of these sizes."""
        numbers = self._numbers(sizes).tolist()
        return [
            (label, (flops, size, int(live)))
            for label, (flops, size, live) in zip(self.labels, numbers, strict=True)
        ]

    def tally(self, trace: StepTrace, sizes: Sizes) -> StepTrace:
        """Count a step of these sizes into ``trace``, calls that are alike at once."""
        if self._alike is None:
            self._alike = self._find_alike()
        first, times = self._alike
        numbers = self._numbers(sizes)
        trace.peak_bytes = trace.resident_bytes + int(numbers[:, 2].max(initial=0))
        kept = numbers[first].tolist()
        log = [(self.labels[i], each) for i, each in zip(first, kept, strict=True)]
        return tally(trace, log, times)

    def _numbers(self, sizes: Sizes) -> NDArray[np.float64]:
        if self.slopes is None:
            return self.samples[sizes]
        return (np.array(self._row(sizes)) @ self.slopes).reshape(-1, 3)

    def _find_alike(self) -> tuple[list[int], list[int]]:
        """The first of the calls with the same work at every size in or outside an optimizer."""
        of = np.stack(list(self.samples.values())) if self.slopes is None else self.slopes
        work = of.reshape(len(of), -1, 3)[:, :, :2]
        found: dict[Any, list[int]] = {}
        part = 0
        for i, label in enumerate(self.labels):
            part += label[0] in TURNS
            if not label[1] and label[0] not in TURNS:
                continue
            found.setdefault((part, label, work[:, i].tobytes()), []).append(i)
        return [alike[0] for alike in found.values()], [len(alike) for alike in found.values()]

    def _row(self, sizes: Sequence[int]) -> list[float]:
        """What the slopes are multiplied with: a constant, and the sizes above 1 in the pattern."""
        return [1.0, *(float(n) for n, of in zip(sizes, self.pattern, strict=True) if of == 2)]


class DeclaredWork:
    """What is known of the steps of one kind and shape."""

    def __init__(self) -> None:
        self._lines: dict[Pattern, _Line] = {}
        self._made: dict[Sizes, StepTrace] = {}
        self._last = StepTrace()
        self._state: Any = None
        self._unknown: Pattern = ()
        self._afresh = 0

    def learn(self, sizes: Sizes, log: Log, trace: StepTrace, state: Any) -> None:
        """Take in a step that was counted whole.

        ``state``: what its calls depended on besides, an optimizer's.
        """
        if state != self._state:
            self._lines.clear()
        self._made.clear()
        self._last, self._state = trace, state
        pattern, labels = _pattern(sizes), [label for label, _ in log]
        line = self._lines.get(pattern)
        if line is None or line.labels != labels:
            line = self._lines[pattern] = _Line(pattern, labels)
        line.learn(sizes, np.array([numbers for _, numbers in log], dtype=np.float64))
        found = pattern == self._unknown and line.slopes is not None
        self._afresh = 0 if found else max(self._afresh - 1, 0)

    def is_known(self, state: Any) -> bool:
        """Whether a step may begin uncounted."""
        return (
            not self._afresh
            and state == self._state
            and any(line.slopes is not None or line.repeated for line in self._lines.values())
        )

    def miss(self, sizes: Sizes) -> None:
        """A step that began uncounted was not known: the next ones are counted whole."""
        self._unknown, self._afresh = _pattern(sizes), AFRESH

    def step(self, sizes: Sizes) -> StepTrace | None:
        """The trace of a whole step; None if these sizes are not known."""
        line = self._lines.get(_pattern(sizes))
        if line is None or not line.knows(sizes):
            return None
        if sizes not in self._made:
            self._made[sizes] = line.tally(self._new_trace(), sizes)
        return self._made[sizes]

    def goes_on(self, sizes: Sizes) -> bool:
        """Whether steps are known that begin with these sizes."""
        return self._like(sizes) is not None

    def log_until(self, sizes: Sizes) -> Log:
        """The log up to the declaration of the last of these sizes, by which a known way is left.

        Raises BenchError if that depends on the size.
        """
        found = self._like(sizes[:-1])
        assert found is not None
        line, others = found
        log = line.log(others)
        place = [i for i, (label, _) in enumerate(log) if label[0] == DECLARED][len(sizes) - 1]
        if line.slopes is not None and line.pattern[len(sizes) - 1] == 2:
            grown = (*others[: len(sizes) - 1], others[len(sizes) - 1] + 1, *others[len(sizes) :])
            if line.log(grown)[: place + 1] != log[: place + 1]:
                raise BenchError(
                    "a size is declared after operators whose work depends on it: declare it "
                    "before them (sum(mask.tolist()) reads it without an operator)"
                )
        return log[: place + 1]

    def _like(self, sizes: Sizes) -> tuple[_Line, Sizes] | None:
        """What is known of steps that begin with these sizes, and the sizes of one of them."""
        pattern, n = _pattern(sizes), len(sizes)
        for known, line in self._lines.items():
            if line.slopes is not None and known[:n] == pattern:
                return line, (*sizes, *known[n:])
            for each in line.repeated:
                if each[:n] == sizes:
                    return line, each
        return None

    def trace(self, log: Log, sample: StepTrace) -> StepTrace:
        """The trace of a log of which ``sample`` was counted."""
        made = self._new_trace()
        made.uncounted |= sample.uncounted
        return tally(made, log)

    def _new_trace(self) -> StepTrace:
        """What no log holds is that of the last counted step."""
        last = self._last
        return StepTrace(
            resident_bytes=last.resident_bytes,
            peak_bytes=last.resident_bytes,
            uncounted=set(last.uncounted),
            operators_s=last.operators_s,
            counting_s=last.counting_s,
        )


def _pattern(sizes: Sequence[int]) -> Pattern:
    return tuple(min(size, 2) for size in sizes)
