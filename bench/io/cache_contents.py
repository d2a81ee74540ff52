"""What lies in the cache, and making it smaller: what was used least recently goes first."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.io.weights_cache import cache_folder

LOCK = ".lock"


@dataclass(frozen=True)
class Entry:
    """One file of a kind, as a source model, or one unpacked archive: its ``bytes``, and when it
    was last read or written, in seconds since 1970.
    """

    kind: str
    path: Path
    bytes: int
    used: float


def entries() -> list[Entry]:
    """All that the cache holds, by kind, then by path. Locks and unfinished files are left out."""
    return [
        entry
        for kind in sorted(each for each in _inside(cache_folder()) if each.is_dir())
        for path in sorted(_inside(kind))
        if (entry := _entry(kind.name, path)) is not None
    ]


def prune(most_bytes: float, dry: bool = False) -> list[Entry]:
    """Remove what was used least recently until at most so many bytes are left; what was removed.

    What another process is making or reading first stays: its lock is held. All of it can be made
    again, at the cost of time. ``dry``: nothing is removed.
    """
    found = entries()
    left = sum(entry.bytes for entry in found)
    gone = []
    for entry in sorted(found, key=lambda each: each.used):
        if left <= most_bytes:
            break
        if dry or _remove(entry.path):
            gone.append(entry)
            left -= entry.bytes
    return gone


def _inside(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (p for p in folder.iterdir() if not p.name.startswith(".") and p.suffix != LOCK)


def _entry(kind: str, path: Path) -> Entry | None:
    """None for what another process removed meanwhile."""
    try:
        files = [f for f in path.rglob("*") if f.is_file()] if path.is_dir() else [path]
        facts = [f.stat() for f in files]
    except FileNotFoundError:
        return None
    used = max((max(f.st_atime, f.st_mtime) for f in facts), default=0.0)
    return Entry(kind, path, sum(f.st_size for f in facts), used)


def _remove(path: Path) -> bool:
    """Whether it was removed: not what is locked."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{path}{LOCK}", timeout=0):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except Timeout:
        return False
    return True
