"""The end of a run's log, of a store in which anyone may have written anything."""

from __future__ import annotations

import os

from bench.io.one_line import one_line
from bench.records.export_files import log_file
from bench.records.store import Store

MOST_BYTES = 64 * 1024
"""Of a log, from its end."""
WIDEST = 500
"""Characters of a line."""


def log_tail(store: Store, log: str, lines: int) -> list[str]:
    """The last lines of the log that a record names, printable; one that says why there are none.

    Only a regular file directly in the store's folder of logs is read, and no link.
    """
    path = log_file(store, log)
    if path is None:
        return [f"(no log: {one_line(repr(log))} is no file in {store.logs.name}/)"]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        return [f"(no log: {error.strerror or error})"]
    try:
        begin = max(os.fstat(handle).st_size - MOST_BYTES, 0)
        content = os.pread(handle, MOST_BYTES, begin).decode(errors="replace")
    finally:
        os.close(handle)
    found = content.splitlines()[1 if begin else 0 :]
    return [one_line(line, WIDEST) for line in found[-lines:]] or ["(the log is empty)"]
