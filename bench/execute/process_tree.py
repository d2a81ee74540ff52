"""A run's process with all that it started: what they take, whether they stand still, their end."""

from __future__ import annotations

import contextlib
import signal
import time

import psutil

LONGEST_TICK_S = 1.0
"""A longer time between two looks means that the one who looks stood still."""


class ActiveTime:
    """Seconds in which work could go on: a suspended machine or a stopped process has none.

    It is fed by looks, one every fraction of a second. A step between two looks that is longer
    than `LONGEST_TICK_S` counts as one of that length.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = time.monotonic()

    def look(self, stopped: bool) -> None:
        """Count the time since the last look, unless the work was ``stopped``."""
        now = time.monotonic()
        step, self._last = now - self._last, now
        if not stopped:
            self.seconds += min(step, LONGEST_TICK_S)


class ProcessTree:
    """A process and its descendants, also those that it has left to themselves.

    What a process leaves behind is adopted by the run's process, which is a subreaper
    (`bench.execute.fork_server`), so that none is lost from sight while that lives.
    """

    def __init__(self, pid: int) -> None:
        self._seen: dict[int, psutil.Process] = {}
        with contextlib.suppress(psutil.Error):
            self._seen[pid] = psutil.Process(pid)
        self.pid = pid

    def look(self) -> None:
        """Find what has been started since the last look."""
        root = self._seen.get(self.pid)
        if root is None:
            return
        with contextlib.suppress(psutil.Error):
            children = root.children(recursive=True)
            self._seen = {self.pid: root} | {child.pid: child for child in children}

    def resident_bytes(self, shared_once: bool = False) -> int:
        """Resident memory of all of them. What they share counts for each of them.

        With ``shared_once`` it counts once where the system tells (Linux): children of a fork have
        most in common. What the run shares with its fork server then counts for the largest only.
        This takes milliseconds a process.
        """
        total = largest = 0
        for process in self._seen.values():
            size = 0
            with contextlib.suppress(psutil.Error):
                size = process.memory_info().rss
                largest = max(largest, size)
                if shared_once:
                    size = getattr(process.memory_full_info(), "pss", size)
            total += size
        return max(total, largest)

    @property
    def stopped(self) -> bool:
        """Whether the run's process is stopped, by a signal or a debugger."""
        return self._status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    @property
    def ended(self) -> bool:
        """Whether the run's process has ended, reaped or not."""
        return self._status() in ("", psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

    def _status(self) -> str:
        root = self._seen.get(self.pid)
        if root is not None:
            with contextlib.suppress(psutil.Error):
                return str(root.status()) if root.is_running() else ""
        return ""

    def kill(self) -> None:
        """Kill the run's process; what it started is ended by the fork server."""
        self._kill(self.pid)

    def kill_all(self) -> None:
        """Kill all of them: no fork server is left to do it."""
        for pid in list(self._seen):
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        with contextlib.suppress(psutil.Error):  # never another process of the same number
            self._seen[pid].kill()


def signal_name(number: int) -> str:
    """A signal's name; real-time signals between the first and the last have none of Python's."""
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    if hasattr(signal, "SIGRTMIN") and signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return f"signal {number}"
