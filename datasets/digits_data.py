"""The real digits of scikit-learn as a data set: for trying streams without a download."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from bench import DataSetConfig, Split, register

from ._images import ImageData, Pixels, corrupted_image
from .corruptions import apply_shift


class DigitsDataConfig(DataSetConfig):
    """``root``: the installed package that holds them; ``size``: pixels a side."""

    root: Literal["scikit-learn"] = "scikit-learn"
    size: Pixels = 32


@register("dataset", "digits")
class DigitsData(ImageData):
    """The 1,797 real 8x8 digits of scikit-learn, upsampled bilinearly: one domain, ten classes.

    Alpaydin & Kaynak, 1998: the test set of the UCI "Optical Recognition of Handwritten Digits".
    """

    Config = DigitsDataConfig
    class_names = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")

    def __init__(self, config: Any) -> None:
        spec = find_spec("sklearn")
        assert spec is not None
        assert spec.origin is not None
        self.config = config
        self.root = Path(spec.origin).parent / "datasets" / "data"
        self.input_shape = (1, config.size, config.size)

    def domains(self) -> list[str]:
        return ["digits"]

    def split(self, domain: str, name: str) -> Split:
        from sklearn.datasets import load_digits

        digits = load_digits()
        small = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
        size = (self.config.size, self.config.size)
        x = torch.nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
        return Split(x, torch.from_numpy(digits.target).long())

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        if "/" in name:
            seeds = [zlib.crc32(f"{key}/{i}".encode()) for i in range(len(split))]
            pairs = zip(split.x, seeds, strict=True)
            return Split(
                torch.stack([corrupted_image(x, name, seed) for x, seed in pairs]), split.y
            )
        kind, _, severity = name.rpartition("-")
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        return Split(apply_shift(kind, split.x, int(severity), generator), split.y)

    def files(self) -> Iterator[Path]:
        yield self.root / "digits.csv.gz"
