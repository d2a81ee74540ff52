"""What a process shares among all that runs in it: the working directory and the umask."""

from __future__ import annotations

import contextlib
import os


class ProcessState:
    """The working directory and the umask as they are now, to be put back.

    A run's record is written where the store is, and colleagues can read it, whatever a method
    has changed of its process.
    """

    def __init__(self) -> None:
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._folder: int | None = None
        with contextlib.suppress(OSError):  # it was removed
            self._folder = os.open(".", os.O_RDONLY)

    def restore(self) -> None:
        """Put them back, once; a directory that nobody can enter any more stays left."""
        os.umask(self._umask)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                os.fchdir(self._folder)
                os.close(self._folder)
            self._folder = None
