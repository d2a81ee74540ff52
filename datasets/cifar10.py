"""CIFAR-10 and CIFAR-10-C as published by Krizhevsky (2009) and Hendrycks & Dietterich (2019)."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import BenchError, DataSetConfig, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType

from ._images import ImageData, Size

CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
PYTHON, BINARY, CORRUPTED = "cifar-10-batches-py", "cifar-10-batches-bin", "CIFAR-10-C"
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
CLEAN, SIDE, SEVERITIES = "clean", 32, 5
BYTES = 3 * SIDE * SIDE
TESTED = 0.3
"""Share of the test images that is tested where CIFAR-10-C is there: the last ones."""


class Cifar10Config(DataSetConfig):
    """``size``: height and width in pixels, or one for both."""

    size: Size = (32, 32)


class _Pixels(LazyInputs):
    """Images of bytes, (n, height, width, 3), which may lie in a file, resized when they are read.

    ``first``: the number of the first among the test images, where they are those under a
    corruption; they have the name of the image, so that none is learned here and tested there.
    """

    def __init__(self, pixels: np.ndarray, size: tuple[int, int], first: int | None = None) -> None:
        super().__init__(torch.arange(len(pixels)))
        self._pixels, self._size, self._first = pixels, size, first

    def read(self, positions: Tensor) -> Inputs:
        chosen = np.array(self._pixels[positions.numpy()])
        images = torch.from_numpy(chosen).permute(0, 3, 1, 2).float() / 255
        return torch.nn.functional.interpolate(
            images, size=self._size, mode="bilinear", align_corners=False, antialias=True
        )

    def names(self, positions: Tensor) -> list[str]:
        if self._first is not None:
            return [f"test image {self._first + i}" for i in positions.tolist()]
        chosen = (np.ascontiguousarray(self._pixels[i]) for i in positions.tolist())
        return [hashlib.sha256(each.tobytes()).hexdigest() for each in chosen]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((3, *self._size), torch.float32)}

    def settings(self) -> Any:
        if self._first is None:
            return None
        chosen = np.ascontiguousarray(self._pixels[self.positions.numpy()])
        return hashlib.sha256(chosen.tobytes()).hexdigest()


@register("dataset", "cifar10")
class Cifar10(ImageData):
    """CIFAR-10, ROOT/cifar-10-batches-py or -bin, and, where it is there, ROOT/CIFAR-10-C.

    Domain ``clean`` has the published splits. A domain such as ``fog-3`` has the test images under
    a corruption of ROOT/CIFAR-10-C/fog.npy: the first 70 % in its split ``train``, the others in
    ``test``, and these alone are then tested of ``clean``, so that no image is learned under one
    corruption and tested under another.
    """

    Config = Cifar10Config
    config: Cifar10Config
    class_names = CLASSES

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)
        folders = [self.root / name for name in (BINARY, PYTHON) if (self.root / name).is_dir()]
        if not folders:
            raise BenchError(
                f"root {self.root} has no {PYTHON} and no {BINARY}: unpack cifar-10-python.tar.gz "
                "or cifar-10-binary.tar.gz into it"
            )
        self._folder = folders[0]
        self._corruptions = sorted(
            f.stem for f in (self.root / CORRUPTED).glob("*.npy") if f.stem != "labels"
        )

    def domains(self) -> list[str]:
        severities = range(1, SEVERITIES + 1)
        return [CLEAN, *(f"{kind}-{i}" for kind in self._corruptions for i in severities)]

    def splits(self, domain: str) -> list[str]:
        return ["train", "test"]

    def split(self, domain: str, name: str) -> Split:
        if domain == CLEAN:
            pixels, y = self._clean(name)
            if name == "test" and self._corruptions:
                first = len(y) - round(TESTED * len(y))
                pixels, y = pixels[first:], y[first:]
            return Split(_Pixels(pixels, self.config.size), y)
        kind, _, severity = domain.rpartition("-")
        file = self.root / CORRUPTED / f"{kind}.npy"
        pixels, y = _array(file, 4), self._labels
        if pixels.shape != (len(y), SIDE, SIDE, 3) or len(y) % SEVERITIES:
            raise BenchError(
                f"{file}: is of shape {pixels.shape}, and labels.npy has {len(y)} labels of images "
                f"of {SIDE} x {SIDE} pixels under {SEVERITIES} severities: fetch both anew"
            )
        n = len(y) // SEVERITIES
        start, divided = n * (int(severity) - 1), n - round(TESTED * n)
        first, last = (0, divided) if name == "train" else (divided, n)
        chosen = slice(start + first, start + last)
        return Split(_Pixels(pixels[chosen], self.config.size, first), y[chosen])

    def files(self) -> Iterator[Path]:
        yield from (self._file(batch) for batches in BATCHES.values() for batch in batches)
        if self._corruptions:
            yield from (self.root / CORRUPTED / f"{n}.npy" for n in (*self._corruptions, "labels"))

    def _file(self, batch: str) -> Path:
        return self._folder / (f"{batch}.bin" if self._folder.name == BINARY else batch)

    def _clean(self, name: str) -> tuple[np.ndarray, Tensor]:
        read = _binary if self._folder.name == BINARY else _pickled
        parts = [read(self._file(batch)) for batch in BATCHES[name]]
        pixels = np.concatenate([p for p, _ in parts]).reshape(-1, 3, SIDE, SIDE)
        y = torch.cat([torch.from_numpy(y.astype(np.int64)) for _, y in parts])
        return pixels.transpose(0, 2, 3, 1), y

    @cached_property
    def _labels(self) -> Tensor:
        file = self.root / CORRUPTED / "labels.npy"
        y = torch.from_numpy(_array(file, 1).astype(np.int64))
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(CLASSES):
            raise BenchError(f"{file}: has numbers beside 0 to {len(CLASSES) - 1}: fetch it anew")
        return y


def _array(file: Path, dimensions: int) -> np.ndarray:
    """An array that stays in its file."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(f"{file}: cannot be read ({error}): unpack CIFAR-10-C.tar anew") from error
    if found.ndim != dimensions or found.dtype.kind not in "ui":
        raise BenchError(
            f"{file}: is an array of {found.dtype} and shape {found.shape}: unpack CIFAR-10-C.tar "
            "anew"
        )
    return found  # type: ignore[no-any-return]


def _binary(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a batch: of each image a byte for its class, then its pixels."""
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error}): unpack it anew") from error
    if not len(data) or len(data) % (1 + BYTES):
        raise BenchError(
            f"{file}: has {len(data)} bytes, no multiple of {1 + BYTES}: unpack it anew"
        )
    rows = data.reshape(-1, 1 + BYTES)
    return _checked(file, rows[:, 1:], rows[:, 0])


class _Plain(pickle.Unpickler):
    """Reads arrays and plain values, and runs no other code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] in ("numpy", "_codecs") and name in (
            "_reconstruct", "ndarray", "dtype", "encode"
        ):  # fmt: skip
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _pickled(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a batch for Python."""
    try:
        content = _Plain(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        pixels, y = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    except Exception as error:  # a damaged pickle raises many kinds
        raise BenchError(f"{file}: is no batch of CIFAR-10 ({error}): unpack it anew") from error
    return _checked(file, pixels, y)


def _checked(file: Path, pixels: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = pixels.dtype == np.uint8 and pixels.shape == (len(y), BYTES) and y.ndim == 1
    if not whole or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < len(CLASSES)):
        raise BenchError(
            f"{file}: has not {BYTES} bytes and a class from 0 to {len(CLASSES) - 1} for each "
            "image: unpack it anew"
        )
    return pixels, y
