"""The end of a run's log, of a store in which anyone may have written anything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from bench.io.one_line import one_line
from bench.records.export_files import log_file
from bench.records.record import Record
from bench.records.store import Store

MOST_BYTES = 64 * 1024
"""Of a log, from its end."""
WIDEST = 500
"""Characters of a line."""
SHOWN_LOGS = 200
"""Of failed runs that a report shows the end of."""
SHOWN_LINES = 15
"""Lines that it shows of each."""


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


def log_ends(records: Iterable[Record], stores: Sequence[Store]) -> dict[str, str]:
    """By the name that a record has of its log the last lines of it, for runs without a result."""
    ends: dict[str, str] = {}
    for record in records:
        if record.status != "ok" and record.log and len(ends) < SHOWN_LOGS:
            holding = next((s for s in stores if log_file(s, record.log)), None)
            if holding is not None:
                ends[record.log] = "\n".join(log_tail(holding, record.log, SHOWN_LINES))
    return ends
