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
            stream.seek(0, 2)
            stream.seek(max(stream.tell() - TAIL, 0))
            said = stream.read().decode(errors="replace").strip()
    except OSError:
        return "no log was written"
    return one_line(said.split("\n")[-1], SHOWN) if said else "its log is empty"


def new_lines(log: Path, position: int) -> tuple[list[bytes], int]:
    """Complete lines of a file from ``position`` on, and the position behind them."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(position)
        *lines, _ = stream.read().split(b"\n")
        return lines, position + sum(len(line) + 1 for line in lines)
    return [], position
