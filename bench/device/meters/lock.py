"""One energy measurement at a time on one device, across the processes of this machine."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from bench.device.meters.errors import MeterError

if TYPE_CHECKING:
    from filelock import BaseFileLock

MACHINE = "this machine"
"""The device of every meter that sees the work of all processes."""

_held: dict[tuple[int, Path], DeviceLock] = {}
"""Who holds which lock in which process (a fork copies this): one would wait for oneself."""


def _tell(message: str) -> None:
    print(message, flush=True)


class DeviceLock:
    """A lock on ``device``, held by one meter of one process; its holder may take it again.

    The file lies in the folder for temporary files, which all users of a machine share: another
    user's measurement disturbs as much as one's own. It is created at the first ``acquire``, so
    that a forked process gets its own.

    Parameters
    ----------
    device : what is measured; meters of the same device exclude each other
    timeout_s : seconds to wait for another process before giving up
    tell : receives one line when it has to wait
    """

    def __init__(
        self,
        device: str = MACHINE,
        *,
        timeout_s: float = 600.0,
        folder: Path | None = None,
        tell: Callable[[str], None] = _tell,
    ) -> None:
        self.device = device
        name = re.sub(r"[^\w.-]+", "-", device)
        self.path = (folder or Path(tempfile.gettempdir())) / f"edge-adaptation-bench-{name}.lock"
        self.timeout_s = timeout_s
        self._tell = tell
        self._file: BaseFileLock | None = None
        self._depth = 0

    def acquire(self) -> None:
        """Wait until nobody else measures the device.

        Raises MeterError after ``timeout_s``, if this process measures the device already with
        another meter, or if the lock file cannot be used.
        """
        holder = _held.get((os.getpid(), self.path))
        if holder is not None and holder is not self:
            raise MeterError(
                f"energy of {self.device}: this process measures it already with another meter; "
                "end that window first"
            )
        if self._depth == 0:
            self._file = self._wait()
            _held[os.getpid(), self.path] = self
        self._depth += 1

    def release(self) -> None:
        """Give it back; as often as it was acquired."""
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
                    f"energy of {self.device}: another process is measuring it ({self.path}); "
                    f"waiting for at most {self.timeout_s:g} s"
                )
                lock.acquire(timeout=self.timeout_s)
        except Timeout as error:
            raise MeterError(
                f"energy of {self.device}: another process has been measuring it for "
                f"{self.timeout_s:g} s ({self.path}); run again when it is done"
            ) from error
        except OSError as error:
            raise MeterError(
                f"energy of {self.device}: lock file {self.path}: {error.strerror or error}; "
                "make it writable, or remove it when nobody is measuring"
            ) from error
        return lock

    def __enter__(self) -> DeviceLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
