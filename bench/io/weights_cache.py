"""Trained weights on disk: made once for each content, shared by all processes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.io.atomic_write import remove_stale, write_atomically

Weights = dict[str, Any]
"""Tensors, and dicts, lists and plain values of them: what a ``weights_only`` load reads."""


def cache_folder() -> Path:
    """``$BENCH_CACHE``, else ``edge-adaptation-bench`` in the user's cache folder."""
    if named := os.environ.get("BENCH_CACHE"):
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edge-adaptation-bench"


def remove_stale_weights() -> None:
    """Remove temporary files of the cache whose writer was killed long ago."""
    folder = cache_folder()
    remove_stale(folder)
    for inner in folder.glob("*/"):
        remove_stale(inner)


def cached(path: Path, make: Callable[[], Weights]) -> Weights:
    """What ``path`` holds, made by ``make`` and kept there on first use, or if it is damaged.

    Of two processes that ask at once the second waits. BenchError if the cache cannot be written.
    """
    import torch
    from filelock import FileLock

    weights = _read(path)
    if weights is not None:
        return weights
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{path}.lock").acquire()
    with held:
        weights = _read(path)  # another process may have made it meanwhile
        if weights is None:
            weights = make()  # an OSError in here is about something else than the cache
            stream = io.BytesIO()
            torch.save(weights, stream)
            with _writing(path):
                write_atomically(path, stream.getvalue())
    return weights


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a BenchError with the cure."""
    try:
        yield
    except OSError as error:
        raise BenchError(
            f"cache folder {path.parent}: {error.strerror or error}; set BENCH_CACHE to a folder "
            "that can be written"
        ) from error


def _read(path: Path) -> Weights | None:
    """What the file holds; None if there is none or it is damaged."""
    import torch

    if not os.path.exists(path):  # unlike Path.exists, never raises
        return None
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds for a damaged file
        why = str(error).partition("\n")[0]
        print(f"{path} is damaged ({why}); making it again", flush=True)
        return None
