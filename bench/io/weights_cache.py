"""Trained weights on disk: made once for each content, shared by all processes."""

from __future__ import annotations

import copy
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.io.atomic_write import remove_stale, write_atomically
from bench.io.progress import advance

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


def made_on(kind: str, path: Path) -> Path:
    """Where weights of ``path`` lie that were made on ``cpu`` or ``cuda``: they differ in rounding.

    The same for a path that was made by this function.
    """
    if kind == "cpu" or path.stem.endswith(f"-{kind}"):
        return path
    return path.with_name(f"{path.stem}-{kind}{path.suffix}")


def cached(path: Path, make: Callable[[], Weights]) -> Weights:
    """What ``path`` holds, made by ``make`` and kept there on first use, or if it is damaged.

    A process that computes with CUDA has files of its own, see `made_on`. Weights are on the CPU,
    and torch's generators afterwards as they were: whether anything was made changes no result.
    Of two processes that ask at once the second waits. BenchError if the cache cannot be written,
    or if what was made is not finite, which is not kept.
    """
    import torch
    from filelock import FileLock

    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    path = made_on("cuda" if gpus else "cpu", path)
    weights = read_cached(path)
    if weights is not None:
        return weights
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(f"{path}.lock").acquire()
    with held:
        weights = read_cached(path)  # another process may have made it meanwhile
        if weights is None:
            advance(0, 0)  # how long it takes is not known yet
            with torch.random.fork_rng(devices=gpus):
                weights = make()  # an OSError in here is about something else than the cache
            weights = _on_cpu(weights) if gpus else weights
            if bad := not_finite(weights):
                raise BenchError(
                    f"{path.parent.name}: {bad}, for the training diverged; lower its learning "
                    "rate. Nothing is cached"
                )
            keep(path, weights)
    return weights


def _on_cpu(weights: Any) -> Any:
    import torch

    if isinstance(weights, torch.Tensor):
        return weights.cpu()
    if isinstance(weights, dict):
        moved = copy.copy(weights)  # with what a state dict says of the versions of its layers
        moved.update({name: _on_cpu(value) for name, value in weights.items()})
        return moved
    return [_on_cpu(value) for value in weights] if isinstance(weights, list) else weights


def keep(path: Path, weights: Weights) -> None:
    """Write ``weights`` whole or not at all; BenchError if the cache cannot be written."""
    import torch

    stream = io.BytesIO()
    torch.save(weights, stream)
    with _writing(path):
        write_atomically(path, stream.getvalue())


def read_cached(path: Path) -> Weights | None:
    """What the file holds; None if there is none, or if it is damaged, which one line says.

    Every byte is checked against its checksum, which ``torch.load`` does not do.
    """
    import torch

    if not os.path.exists(path):  # unlike Path.exists, never raises
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {part} is wrong")
        weights: Weights = torch.load(path, weights_only=True, map_location="cpu")
        if bad := not_finite(weights):
            raise ValueError(bad)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        why = str(error).partition("\n")[0]
        print(f"{path} is damaged ({why}); making it again", file=sys.stderr, flush=True)
        return None
    return weights


def not_finite(weights: Any, name: str = "") -> str:
    """Which tensor has entries that are not finite, in words, or nothing.

    A mask of zeros and infinities, as some models keep for their attention, is what it should be.
    """
    import torch

    if isinstance(weights, torch.Tensor):
        if not weights.is_floating_point() or weights.isfinite().all():
            return ""
        rest = weights[~weights.isinf()]
        masks = rest.numel() > 0 and not rest.isnan().any() and not rest.any()
        return "" if masks else f"the weights {name!r} are not finite"
    items = weights.items() if isinstance(weights, dict) else ()
    found = (not_finite(value, f"{name}.{key}" if name else str(key)) for key, value in items)
    return next((text for text in found if text), "")


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
