"""Archives of data, as they are downloaded, and of stores: unpacked into the cache on first use."""

from __future__ import annotations

import gzip
import lzma
import math
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from bench.errors import BenchError
from bench.io.digest import digest
from bench.io.weights_cache import cache_folder

ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, RuntimeError, gzip.BadGzipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip
"""What the libraries raise for damaged archives, and RuntimeError for encrypted ones."""


def is_archive(path: Path) -> bool:
    """Whether a path is a file with the ending of an archive."""
    return path.name.lower().endswith(ENDINGS) and os.path.isfile(path)


def unpacked(archive: Path, what: str = "root", most_bytes: float = math.inf) -> Path:
    """The folder with an archive's content, or the only folder in it.

    It lies in the cache, made on first use, and anew if the archive's size or time changes. Of two
    processes that ask at once the second waits. Files that would leave the folder are refused, and
    links in tar files that lead out of it. ``what``: begins messages. Raises BenchError if the
    archive cannot be read, has more than ``most_bytes`` unpacked, or the cache cannot be written.
    """
    from filelock import FileLock

    facts = archive.stat()
    key = digest([str(archive.resolve()), facts.st_size, facts.st_mtime_ns])
    made = cache_folder() / "unpacked" / key[:24]
    if not made.is_dir():
        try:
            made.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{made}.lock"):
                if not made.is_dir():
                    _unpack(archive, made, most_bytes)
        except UNREADABLE as error:
            raise BenchError(
                f"{what} {archive}: cannot be unpacked ({error}); download it again, or name the "
                "folder with its content"
            ) from error
        except OSError as error:
            raise BenchError(
                f"{what} {archive}: cannot be unpacked into {made.parent}: {error.strerror}; make "
                "room there, or set BENCH_CACHE"
            ) from error
    inside = [each for each in made.iterdir() if not each.name.startswith((".", "__"))]
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else made


def _require_small(sizes: Iterable[int], most_bytes: float) -> None:
    """RuntimeError if the sizes that an archive says of its files are too much together."""
    total = 0
    for size in sizes:
        total += size
        if total > most_bytes:
            raise RuntimeError(f"its content has more than {most_bytes / 1e9:.0f} GB")


def _unpack(archive: Path, folder: Path, most_bytes: float) -> None:
    """Into a temporary folder beside, which takes its name when it is whole."""
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _require_small((each.file_size for each in opened.infolist()), most_bytes)
                opened.extractall(staged)
        else:
            with tarfile.open(archive) as opened_tar:
                _require_small((member.size for member in opened_tar), most_bytes)
                opened_tar.extractall(staged, filter="data")
        os.replace(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
