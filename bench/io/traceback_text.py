"""The traceback of an exception, for a log file: what it says of itself may be many megabytes."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator

LONGEST_PART, LONGEST = 20_000, 200_000
"""Characters of one part (a frame with its line, or an exception's message), and of all parts."""


def print_traceback(error: BaseException) -> None:
    """Print the traceback of an exception to standard error, as Python does; long texts are cut."""
    parts = traceback.TracebackException.from_exception(error).format()
    print("".join(_cut(parts)), end="", file=sys.stderr, flush=True)


def _cut(parts: Iterable[str]) -> Iterator[str]:
    left = LONGEST
    for part in parts:
        if left <= 0:
            yield "… (the rest of the traceback is left out)\n"
            return
        limit = min(left, LONGEST_PART)
        left -= len(part)
        if len(part) > limit:
            part = f"{part[:limit]}… ({len(part):,} characters in all)\n"
        # Halves of surrogate pairs cannot be written.
        yield part.encode(errors="backslashreplace").decode()
