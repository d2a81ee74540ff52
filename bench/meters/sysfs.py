"""Small files of the kernel: their text or their number, or a reason in one line."""

from __future__ import annotations

import math
from pathlib import Path

from bench.meters.errors import MeterError, ReadFailed


def read_text(path: Path) -> str:
    """The file's text, stripped of blanks and of the device tree's closing NUL.

    Raises ReadFailed if it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8", "replace").strip("\0 \t\r\n")
    except PermissionError as error:
        raise ReadFailed(
            f"{path} may not be read by this user; run as root or grant read permission to it"
        ) from error
    except OSError as error:
        raise ReadFailed(f"{path} cannot be read: {error.strerror or error}") from error


def read_number(path: Path) -> float:
    """The finite number that the file holds, in the file's own unit.

    Raises ReadFailed if it cannot be read, MeterError if it holds something else.
    """
    text = read_text(path)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MeterError(
            f"{path} holds {text[:40]!r}, not a number; the sensor or its driver fails"
        )
    return value
