"""Baidu Person: photos with masks of persons as JPEG files."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np

from bench import BenchError, register

from ._images import is_image, read_gray
from ._masks import (
    ONE,
    MaskConfig,
    MaskData,
    Pair,
    PixelLabels,
    RegionBoxes,
    RegionBoxesConfig,
    RegionClasses,
    RegionConfig,
    first_of,
)

FOLDER, IMAGES, LABELS = "clean_images", "images", "profiles"
MIDDLE, FAITHFUL = 128, 2
"""Gray values from which on a pixel is light: of a mask, and in EdgeTA's release."""

MOST_GRAY = 0.1
"""Share of a mask that may lie far from black and white: JPEG makes edges gray, and no more."""


class BaiduPersonConfig(MaskConfig):
    """``size``: height and width in pixels, or one for both; ``person``: whether persons are the
    ``light`` or the ``dark`` part of masks, which 'bench data show' shows; ``faithful``: as in
    EdgeTA's release all that is not black is light, the gray edges that JPEG makes included.
    """

    person: Literal["light", "dark"] = "light"
    faithful: bool = False


class BaiduPersonRegionConfig(RegionConfig, BaiduPersonConfig):
    """As `BaiduPersonConfig`. ``least``: pixels of both sides of a region's box, in the image as it
    is; ``classes`` has no meaning here.
    """


class BaiduPersonBoxesConfig(RegionBoxesConfig, BaiduPersonConfig):
    """As `BaiduPersonRegionConfig`; ``boxes``: the most that an image may have."""


class _BaiduPerson(MaskData):
    """ROOT/clean_images/images/NAME.jpg and ROOT/clean_images/profiles/NAME-profile.jpg."""

    config: Any
    pixel_classes = ("background", "person")
    things = ("person",)

    def pairs(self, name: str) -> list[Pair]:
        return self._pairs[name]

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        inner = self.root / FOLDER
        root = inner if inner.is_dir() else self.root
        found = []
        for image in sorted((root / IMAGES).glob("*")):
            if is_image(image.name):
                mask = root / LABELS / f"{image.stem}-profile.jpg"
                found.append(
                    Pair(image, first_of([mask], f"fetch the mask of {image.name}, or remove both"))
                )
        if not found or not (root / LABELS).is_dir():
            raise BenchError(
                f"root {self.root}: has no images: this layout is ROOT/{FOLDER}/{IMAGES}/*.jpg and "
                f"ROOT/{FOLDER}/{LABELS}/*-profile.jpg"
            )
        return {ONE: found}

    def mask(self, pair: Pair) -> np.ndarray:
        gray = read_gray(pair.mask)
        between = float(((gray >= 64) & (gray < 192)).mean())
        if between > MOST_GRAY:
            raise BenchError(
                f"{pair.mask}: {between:.0%} of its pixels are neither black nor white: it is no "
                "mask; fetch it anew, or remove it with its image"
            )
        light = gray >= (FAITHFUL if self.config.faithful else MIDDLE)
        return (light if self.config.person == "light" else ~light).astype(np.uint8)


@register("dataset", "baidu-person")
class BaiduPerson(PixelLabels, _BaiduPerson):
    """Photos with persons: ROOT/clean_images/{images/N.jpg,profiles/N-profile.jpg}.

    Classes are background and person: the dark and the light part of a mask, or the other way
    round, see ``person``.
    """

    Config = BaiduPersonConfig


@register("dataset", "baidu-person-cls")
class BaiduPersonClasses(RegionClasses, _BaiduPerson):
    """Persons cut out of Baidu Person, as EdgeTA's BaiduPersonCls: for ``several``."""

    Config = BaiduPersonRegionConfig


@register("dataset", "baidu-person-det")
class BaiduPersonBoxes(RegionBoxes, _BaiduPerson):
    """Boxes of the persons of Baidu Person, as EdgeTA's BaiduPersonDet."""

    Config = BaiduPersonBoxesConfig
