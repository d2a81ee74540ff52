"""What processes have written: their last line, and new lines as they come."""

from __future__ import annotations

import contextlib
from pathlib import Path

from bench.io.one_line import one_line

SHOWN = 300
"""Characters of a last line that are shown."""
TAIL = 1 << 16
"""Bytes at the end of a log in which its last line is looked for."""


def last_line(log: Path) -> str:
    """The last line of a run's output, in one line of its own."""
    try:
        with log.open("rb") as stream:
            start = max(stream.seek(0, 2) - TAIL, 0)
            whole = stream.seek(start) == 0
            said = stream.read().decode(errors="replace").strip()
    except OSError:
        return "no log was written"
    if not said:
        return "its log is empty"
    *others, last = said.split("\n")
    return one_line(last if others or whole else f"…{last}", SHOWN)


def new_lines(log: Path, position: int) -> tuple[list[bytes], int]:
    """Complete lines of a file from ``position`` on, and the position behind them."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(position)
        *lines, _ = stream.read().split(b"\n")
        return lines, position + sum(len(line) + 1 for line in lines)
    return [], position
