"""Write files that appear whole or not at all, in folders that a user names."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from bench.errors import BenchError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new; OSError leaves the old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    # Not mkstemp: its files are private, and colleagues share a store.
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        name.unlink(missing_ok=True)
        raise


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
