"""What takes long to read from a data set: kept in the project's cache, never beside the data."""

from __future__ import annotations

import inspect
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import BenchError
from bench.io.digest import digest
from bench.io.folder_files import files_digest
from bench.io.progress import advance
from bench.io.weights_cache import Weights, cache_folder, cached
from bench.registry.component_code import code_digest


def derived_key(made_by: type, root: Path, files: Iterable[Path], settings: Any) -> str:
    """Digest of what something is derived from: the files, the settings, as JSON, and the code."""
    code = code_digest(Path(inspect.getfile(made_by)).resolve())
    return digest([made_by.__qualname__, code, files_digest(root, files).value, settings])


def derived(kind: str, key: str, make: Callable[[], Weights]) -> Weights:
    """Tensors, lists and plain values under their `derived_key`, made on first use."""
    return cached(cache_folder() / kind / f"{key}.pt", make)


def derived_masks(
    key: str, n: int, size: tuple[int, int], make: Callable[[], Iterable[Tensor]]
) -> Tensor:
    """Masks as uint8 of shape (n, height, width), mapped from a file in the cache.

    ``make`` gives them one by one, on first use; no more than one is held meanwhile. BenchError if
    the cache cannot be written.
    """
    from filelock import FileLock

    if not n:
        return torch.empty(0, *size, dtype=torch.uint8)
    path, total = cache_folder() / "masks" / f"{key}.bin", n * size[0] * size[1]
    if not _is_whole(path, total):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not _is_whole(path, total):  # another process may have made it meanwhile
                    _write(path, n, make())
        except OSError as error:
            raise BenchError(
                f"cache folder {path.parent}: {error.strerror or error}; set BENCH_CACHE to a "
                "folder that can be written"
            ) from error
    return torch.from_file(str(path), shared=False, size=total, dtype=torch.uint8).view(n, *size)


def _is_whole(path: Path, total: int) -> bool:
    return path.is_file() and path.stat().st_size == total


def _write(path: Path, n: int, masks: Iterable[Tensor]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("wb") as stream:
            for done, mask in enumerate(masks, start=1):
                stream.write(mask.to(torch.uint8).contiguous().numpy().tobytes())
                advance(done, n)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
