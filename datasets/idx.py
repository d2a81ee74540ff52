"""Gray images in IDX files, as MNIST and its kind are published."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import BenchError, DataSetConfig, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType
from bench.io.folder_files import files_below

from ._images import ImageData, Size

IMAGES, LABELS, ONE = "-images-idx3-ubyte", "-labels-idx1-ubyte", "all"

SPLITS = {"train": "train", "t10k": "test", "test": "test"}
"""The split that a file is of, by the head of its name."""


class IdxConfig(DataSetConfig):
    """``size``: height and width in pixels, or one for both."""

    size: Size = (32, 32)


class _Pixels(LazyInputs):
    """Gray images of bytes, (n, height, width), resized when they are read."""

    def __init__(self, pixels: Tensor, size: tuple[int, int]) -> None:
        super().__init__(torch.arange(len(pixels)))
        self._pixels, self._size = pixels, size

    def read(self, positions: Tensor) -> Inputs:
        images = self._pixels[positions].unsqueeze(1).float() / 255
        return torch.nn.functional.interpolate(
            images, size=self._size, mode="bilinear", align_corners=False, antialias=True
        )

    def names(self, positions: Tensor) -> list[str]:
        arrays = self._pixels.numpy()
        return [hashlib.sha256(arrays[i].tobytes()).hexdigest() for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((1, *self._size), torch.float32)}


@register("dataset", "idx")
class Idx(ImageData):
    """Gray images in ROOT/DOMAIN/{train,t10k}-images-idx3-ubyte (or .gz), or ROOT/*, and labels.

    The labels of ``NAME-images-idx3-ubyte`` are in ``NAME-labels-idx1-ubyte``. Files of train and
    t10k (or test) are the published splits; others are one split.
    """

    Config = IdxConfig
    config: IdxConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (1, *config.size)
        self._found: dict[tuple[str, str], tuple[Path, Path]] = {}
        for images in self.files():
            if IMAGES not in images.name:
                continue
            labels = images.with_name(images.name.replace(IMAGES, LABELS))
            if not labels.is_file():
                raise BenchError(f"{labels}: is not there, and has the labels of {images.name}")
            folders = images.relative_to(self.root).parts[:-1]
            split = SPLITS.get(images.name.partition("-")[0], "all")
            self._found[folders[0] if folders else ONE, split] = (images, labels)
        if not self._found:
            raise BenchError(
                f"root {self.root} has no files NAME{IMAGES}: this layout is "
                f"ROOT/DOMAIN/train{IMAGES}.gz and ROOT/DOMAIN/train{LABELS}.gz"
            )

    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self._found))

    def splits(self, domain: str) -> list[str]:
        return [split for d, split in self._found if d == domain]

    def split(self, domain: str, name: str) -> Split:
        images, labels = self._found[domain, name]
        x, y = _read(images, 3), _read(labels, 1)
        if len(x) != len(y):
            raise BenchError(f"{labels}: has {len(y)} labels for {len(x)} images: fetch both anew")
        return Split(_Pixels(x, self.config.size), y.long())

    def files(self) -> Iterator[Path]:
        return (f for f in files_below(self.root) if IMAGES in f.name or LABELS in f.name)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The numbers of the classes."""
        highest = max(int(_read(labels, 1).max()) for _, labels in self._found.values())
        return tuple(map(str, range(highest + 1)))


def _read(file: Path, dimensions: int) -> Tensor:
    """The bytes of an IDX file: http://yann.lecun.com/exdb/mnist."""
    try:
        data = file.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise BenchError(f"{file}: cannot be read ({error}): fetch it anew") from error
    head = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:head], ">u4").tolist() if len(data) >= head else [0]
    if data[:4] != bytes((0, 0, 8, dimensions)) or len(data) != head + math.prod(shape):
        raise BenchError(
            f"{file}: is no IDX file of bytes in {dimensions} dimensions, or is cut off: fetch it "
            "anew"
        )
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=head).reshape(shape).copy())
