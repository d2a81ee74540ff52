"""Folders that a user names for output."""

from __future__ import annotations

import os
from pathlib import Path

from bench.errors import BenchError


def require_folder(folder: Path, option: str) -> None:
    """Make a folder; BenchError that names the option if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(
            f"{option}: {folder} cannot be created: {error.strerror}; name another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise BenchError(f"{option}: {folder} cannot be written; name another folder")
