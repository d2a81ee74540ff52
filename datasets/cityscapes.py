"""Cityscapes: streets of 50 cities with masks, as published by Cordts et al. (CVPR 2016)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from bench import BenchError, register

from ._images import read_mask
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

IMAGES, LABELS = "leftImg8bit", "gtFine"
PARTS = {"train": "train", "test": "val"}
"""The folder of each split: the masks of the published test split are not public."""

IDS, TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


class CityscapesConfig(MaskConfig):
    """``size``: height and width in pixels, or one for both; ``faithful``: as in EdgeTA's release,
    the published train split alone, which a stream divides, so that neighboring frames of a drive
    are learned and tested.
    """

    faithful: bool = False


class CityscapesRegionConfig(RegionConfig, CityscapesConfig):
    """As `CityscapesConfig`. ``least``: pixels of both sides of a region's box, in the image as it
    is; ``classes``: those that are taken, in the order of their numbers, by default all.
    """


class CityscapesBoxesConfig(RegionBoxesConfig, CityscapesConfig):
    """As `CityscapesRegionConfig`; ``boxes``: the most that an image may have."""


class _Cityscapes(MaskData):
    """ROOT/leftImg8bit/{train,val}/CITY/*_leftImg8bit.png and ROOT/gtFine/{train,val}/CITY/*.png.

    Split ``test`` is the published validation split.
    """

    config: Any
    pixel_classes = things = STREET_CLASSES

    def splits(self, domain: str) -> list[str]:
        return list(self._pairs)

    def pairs(self, name: str) -> list[Pair]:
        return self._pairs[name]

    def mask(self, pair: Pair) -> np.ndarray:
        return street_classes(read_mask(pair.mask), pair.mask, pair.mask.name.endswith(TRAIN_IDS))

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        if self.config.faithful:
            return {ONE: self._of("train")}
        return {name: self._of(folder) for name, folder in PARTS.items()}

    def _of(self, part: str) -> list[Pair]:
        folder, found = self.root / IMAGES / part, []
        for image in sorted(folder.glob(f"*/*_{IMAGES}.png")):
            inner = self.root / LABELS / part / image.parent.name
            name = image.name.removesuffix(f"_{IMAGES}.png")
            mask = first_of(
                [inner / f"{name}{ending}" for ending in (IDS, TRAIN_IDS)],
                "unpack gtFine_trainvaltest.zip into the root",
            )
            found.append(Pair(image, mask))
        if not found:
            raise BenchError(
                f"{folder}: has no CITY/*_{IMAGES}.png: unpack leftImg8bit_trainvaltest.zip and "
                f"gtFine_trainvaltest.zip into the root {self.root}"
            )
        return found


@register("dataset", "cityscapes")
class Cityscapes(PixelLabels, _Cityscapes):
    """Cityscapes' 19 classes: ROOT/leftImg8bit/{train,val}/CITY and ROOT/gtFine/{train,val}/CITY.

    Masks are *_gtFine_labelIds.png, or *_labelTrainIds.png; all but the 19 classes are void. Split
    ``train`` is the published one (2,975 images), and ``test`` the published validation split
    (500), as the masks of the published test split are not public.
    """

    Config = CityscapesConfig


@register("dataset", "cityscapes-cls")
class CityscapesClasses(RegionClasses, _Cityscapes):
    """Regions of Cityscapes' 19 classes, cut out of its images, as EdgeTA's CityscapesCls."""

    Config = CityscapesRegionConfig


@register("dataset", "cityscapes-det")
class CityscapesBoxes(RegionBoxes, _Cityscapes):
    """Boxes of the regions of Cityscapes' classes, as EdgeTA's CityscapesDet."""

    Config = CityscapesBoxesConfig
