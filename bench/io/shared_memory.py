"""Files that runs leave in shared memory, where they take memory until the machine restarts."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

FOLDER = Path("/dev/shm")


class SharedMemory:
    """The files that are there now, to be compared with those that are there later."""

    def __init__(self) -> None:
        self._before = _files()
        self._since = time.time()

    def left_since(self) -> list[str]:
        """Files of this user that appeared since and that no process has open or mapped.

        They may be another program's, and are left alone.
        """
        new = []
        for name in _files() - self._before:
            with contextlib.suppress(OSError):
                found = (FOLDER / name).stat()
                if found.st_uid == os.geteuid():
                    new.append(str(FOLDER / name))
        used = _used() if new else ""
        return sorted(file for file in new if file not in used)


def _files() -> set[str]:
    try:
        return set(os.listdir(FOLDER))
    except OSError:
        return set()


def _used() -> str:
    """The files that processes have open or mapped, in one text."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            mapped = (process / "maps").read_text().split("\n")
            found += [line for line in mapped if f"{FOLDER}/" in line]
        with contextlib.suppress(OSError):
            for file in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found.append(os.readlink(file))
    return "\n".join(found)
