"""One energy measurement at a time on this machine, for all processes and users."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.meters.errors import MeterError

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER = Path("/tmp") if os.name == "posix" else Path(tempfile.gettempdir())
"""Where the lock lies. Not where TMPDIR points: each user and each job may have its own, and their
locks would not exclude each other."""

_held: dict[tuple[int, Path], DeviceLock] = {}
"""Who holds which lock in which process (a fork copies this): one would wait for oneself."""

_tell = partial(print, flush=True)


class DeviceLock:
    """A lock on this machine, held by one meter of one process; its holder may take it again.

    There is one for every meter and every user: a board's sensor or a meter at the plug sees what
    each processor and GPU does, and two kinds of meter may read the same GPU. It is created at the
    first ``acquire``, so that a forked process gets its own.

    Parameters
    ----------
    timeout_s : seconds to wait for another process before giving up
    folder : where the lock file lies, for tests; by default ``FOLDER``
    tell : receives one line when it has to wait
    """

    def __init__(
        self,
        *,
        timeout_s: float = 600.0,
        folder: Path | None = None,
        tell: Callable[[str], None] = _tell,
    ) -> None:
        self.path = (folder or FOLDER) / "edge-adaptation-bench-energy.lock"
        self.timeout_s = timeout_s
        self._tell = tell
        self._file: BaseFileLock | None = None
        self._depth = 0

    def acquire(self) -> None:
        """Wait until no other process measures this machine.

        Raises MeterError after ``timeout_s``, if this process measures it already with another
        meter, or if the lock file cannot be used.
        """
        holder = _held.get((os.getpid(), self.path))
        if holder is not None and holder is not self:
            raise MeterError(
                "energy of this machine: this process measures it already with another meter; end "
                "that window first"
            )
        if self._depth == 0:
            self._file = self._wait()
            _held[os.getpid(), self.path] = self
        self._depth += 1

    def release(self) -> None:
        """Release it, as often as it was acquired."""
        self._depth -= 1
        if self._depth == 0:
            _held.pop((os.getpid(), self.path), None)
            assert self._file is not None
            self._file.release()
            self._file = None

    def _wait(self) -> BaseFileLock:
        from filelock import FileLock, Timeout

        lock = FileLock(self.path, mode=0o666, thread_local=False)
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._tell(
                    f"energy of this machine: another process is measuring it ({self.path}); "
                    f"waiting for at most {self.timeout_s:g} s"
                )
                lock.acquire(timeout=self.timeout_s)
        except Timeout as error:
            raise MeterError(
                f"energy of this machine: another process has been measuring it for "
                f"{self.timeout_s:g} s ({self.path}); run again when it is done"
            ) from error
        except OSError as error:
            raise MeterError(
                f"energy of this machine: lock file {self.path}: {error.strerror or error}; "
                "make it writable, or remove it when nobody is measuring"
            ) from error
        return lock

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()
