"""GTA5: frames of a computer game with masks, as published by Richter et al. (ECCV 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench import BenchError, register
from bench.io.folder_files import files_below

from ._images import is_image, read_mask
from ._masks import (
    ONE,
    STREET_CLASSES,
    MaskConfig,
    MaskData,
    Pair,
    PixelLabels,
    RegionBoxes,
    RegionBoxesConfig,
    RegionClasses,
    RegionConfig,
    first_of,
    street_classes,
)

IMAGES, LABELS, SPLIT_FILE, TRAIN_IDS = "images", "labels", "split.mat", "_labelTrainIds"
SPLITS = {"train": "trainIds", "val": "valIds", "test": "testIds"}
"""The published splits, and what ``split.mat`` calls the numbers of their images."""


class _Skip(MaskConfig):
    """``skip``: the names of images that are left out, as 15188, where their masks do not fit."""

    skip: tuple[str, ...] = ()


class Gta5Config(_Skip):
    """``size``: height and width in pixels, or one for both; ``skip``: the names of images that are
    left out, as "15188".
    """


class Gta5RegionConfig(RegionConfig, _Skip):
    """As `Gta5Config`. ``least``: pixels of both sides of a region's box, in the image as it is;
    ``classes``: those that are taken, in the order of their numbers, by default all.
    """


class Gta5BoxesConfig(RegionBoxesConfig, _Skip):
    """As `Gta5RegionConfig`; ``boxes``: the most that an image may have."""


class _Gta5(MaskData):
    """ROOT/images/00001.png and ROOT/labels/00001.png: palettes whose places are Cityscapes' ids.

    Masks called NAME_labelTrainIds.png have trainIds. ROOT/split.mat, where it is there, has the
    published splits.
    """

    config: Any
    pixel_classes = things = STREET_CLASSES

    def splits(self, domain: str) -> list[str]:
        return list(self._pairs)

    def pairs(self, name: str) -> list[Pair]:
        return self._pairs[name]

    def mask(self, pair: Pair) -> np.ndarray:
        return street_classes(read_mask(pair.mask), pair.mask, pair.mask.stem.endswith(TRAIN_IDS))

    def files(self) -> Iterator[Path]:
        yield from (f for f in [self.root / SPLIT_FILE] if f.is_file())
        yield from super().files()

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        folder = self.root / IMAGES
        files = [file for file in files_below(folder) if is_image(file.name)]
        if not files:
            raise BenchError(
                f"root {self.root}: has no images in {folder}: this layout is ROOT/{IMAGES}/*.png "
                f"and ROOT/{LABELS}/*.png"
            )
        skipped = set(self.config.skip)
        found: dict[str, Pair] = {}
        for image in files:
            if image.stem not in skipped:
                masks = [self.root / LABELS / f"{image.stem}{mark}.png" for mark in ("", TRAIN_IDS)]
                mask = first_of(masks, f"fetch the mask of {image.name}, or name it in 'skip'")
                found[image.stem] = Pair(image, mask)
        return self._divided(found)

    def _divided(self, found: dict[str, Pair]) -> dict[str, list[Pair]]:
        file = self.root / SPLIT_FILE
        if not file.is_file():
            return {ONE: list(found.values())}
        if named := [name for name in found if not name.isdecimal()]:
            raise BenchError(
                f"{found[named[0]].image}: its name is no number, and {file} divides images by "
                "their numbers: remove one of them"
            )
        numbers = {int(name): pair for name, pair in found.items()}
        published = _published(file)
        divided = {n: [numbers[i] for i in ids if i in numbers] for n, ids in published.items()}
        known = {i for ids in published.values() for i in ids}
        if others := sorted(numbers.keys() - known):
            raise BenchError(
                f"{numbers[others[0]].image}: is in no split of {file}: remove one of them"
            )
        return {name: pairs for name, pairs in divided.items() if pairs}


def _published(file: Path) -> dict[str, list[int]]:
    """The numbers of images in each split."""
    from scipy.io import loadmat

    try:
        content = loadmat(file)
        found = {n: sorted(map(int, content[key].ravel())) for n, key in SPLITS.items()}
    except Exception as error:  # a damaged file raises many kinds
        raise BenchError(
            f"{file}: has not the numbers {', '.join(SPLITS.values())} ({error}): fetch "
            "read_mapping.zip anew, or remove the file"
        ) from error
    return found


@register("dataset", "gta5")
class Gta5(PixelLabels, _Gta5):
    """GTA5, 24,966 frames of a game with Cityscapes' 19 classes: ROOT/images and ROOT/labels.

    Masks are palette PNGs whose numbers are Cityscapes' ids (or ROOT/labels/*_labelTrainIds.png);
    all but the 19 are void. Splits are those of ROOT/split.mat, where it is there.
    """

    Config = Gta5Config


@register("dataset", "gta5-cls")
class Gta5Classes(RegionClasses, _Gta5):
    """Regions of GTA5's 19 classes, cut out of its images, as EdgeTA's GTA5Cls."""

    Config = Gta5RegionConfig


@register("dataset", "gta5-det")
class Gta5Boxes(RegionBoxes, _Gta5):
    """Boxes of the regions of GTA5's classes, as EdgeTA's GTA5Det (`classes: [car, bus]`)."""

    Config = Gta5BoxesConfig
