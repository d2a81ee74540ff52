"""Time that reading data takes: files are decoded here, and no device is charged for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class FetchClock:
    """Seconds that this process has spent on reading lazy inputs.

    Attributes
    ----------
    wall_s, process_s, thread_s : by the wall clock, and of CPU time of the process and the thread
    """

    def __init__(self) -> None:
        self.wall_s = self.process_s = self.thread_s = 0.0
        self._depth = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """What is done inside is reading; inner blocks are part of the outer one."""
        self._depth += 1
        begun = time.perf_counter(), time.process_time(), time.thread_time()
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self.wall_s += time.perf_counter() - begun[0]
                self.process_s += time.process_time() - begun[1]
                self.thread_s += time.thread_time() - begun[2]


FETCHING = FetchClock()
"""The clock of this process."""


def wall_clock() -> float:
    """Seconds by the wall clock, which stands still while data are read."""
    return time.perf_counter() - FETCHING.wall_s


def cpu_clocks() -> tuple[float, float]:
    """CPU seconds of the process and of this thread, without those of reading data."""
    return time.process_time() - FETCHING.process_s, time.thread_time() - FETCHING.thread_s
