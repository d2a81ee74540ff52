"""Write files that appear whole or not at all, in folders that a user names."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import BenchError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""Names of files that a writer has not put in place yet."""
STALE_S = 24 * 3600.0
"""A temporary file of this age has lost its writer."""


@contextmanager
def staged(path: Path, content: bytes) -> Iterator[Callable[[], None]]:
    """A temporary file beside ``path``, on the disk, and what puts it in place if it is called.

    A crash leaves the old content or the new; OSError leaves the old.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    # Not mkstemp: its files are private, and colleagues share a store.
    handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)

    def publish() -> None:
        os.replace(name, path)
        _sync_folder(path.parent)

    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        yield publish
    finally:
        name.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new; OSError leaves the old."""
    with staged(path, content) as publish:
        publish()


def _sync_folder(folder: Path) -> None:
    """Put a new name on the disk too, where a folder can be opened and synced."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_stale(folder: Path) -> None:
    """Remove temporary files of `staged` whose writer was killed, `STALE_S` ago or more."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_S:
                        os.unlink(entry.path)


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
