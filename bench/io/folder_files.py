"""The files of a folder, and a digest of what is in them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.io.digest import digest, file_digest

LARGEST_READ = 10**9
"""Bytes of files up to which a digest is that of their contents."""


@dataclass(frozen=True)
class FilesDigest:
    """Digest of files: of their ``contents``, or of their ``paths and sizes``."""

    value: str
    of: Literal["contents", "paths and sizes"]


def files_below(root: Path) -> Iterator[Path]:
    """The files in a folder and the folders in it, linked ones too, in the order of their paths.

    Hidden ones are left out, and those that archives of some systems add (``__MACOSX``).
    """
    for folder, inner, files in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def files_digest(root: Path, files: Iterable[Path]) -> FilesDigest:
    """Digest of files in a folder: of their contents, or above 1 GB of their paths and sizes."""
    files = sorted(files)
    names = [file.relative_to(root).as_posix() for file in files]
    sizes = [file.stat().st_size for file in files]
    if sum(sizes) > LARGEST_READ:
        return FilesDigest(digest([names, sizes]), "paths and sizes")
    return FilesDigest(digest([names, [file_digest(file) for file in files]]), "contents")
