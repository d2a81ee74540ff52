"""Which steps of a run are traced."""

from __future__ import annotations

from collections import Counter

from bench.costs.tracker import Key


class TracePolicy:
    """The first two steps of the run and the first of each window are traced, of each key.

    The others are charged what the last trace came to. The first of a window is traced because a
    method's work may grow; if it left something in memory, as an optimizer's state, the second of
    the window is traced too.
    """

    def __init__(self) -> None:
        self._steps: Counter[Key] = Counter()
        self._traced_in_window: set[Key] = set()
        self._settled: set[Key] = set()

    def open_window(self) -> None:
        """A window opens."""
        self._traced_in_window.clear()
        self._settled.clear()

    def wants(self, key: Key) -> bool:
        """Whether the next step of this key is traced."""
        return key not in self._settled or self._steps[key] < 2

    def step_ended(self, key: Key) -> None:
        """A step ended, traced or not."""
        self._steps[key] += 1

    def step_traced(self, key: Key, grew: bool) -> None:
        """A step was traced; ``grew``: it left more in memory than it found."""
        if not grew or key in self._traced_in_window:
            self._settled.add(key)
        self._traced_in_window.add(key)
