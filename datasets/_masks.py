"""Images with masks in their published layouts: as they are, as regions of classes, as boxes.

A layout says where images and masks are and what the numbers in a mask mean; a kind of label says
what is made of them. A data set is a class of both. Regions are made as EdgeTA makes its
classification and detection sets: of each class the parts that hang together, corners included,
without those of a few pixels, where both sides of their box have ``least`` pixels or more.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataSetConfig, Split
from bench.errors import did_you_mean

from ._boxes import BoxData, Boxes, BoxesConfig
from ._derived import derived, derived_key, derived_masks
from ._images import ImageData, ImageFiles, Size, image_size, nearest
from ._tables import ClassNames

ONE = "all"
VOID = 255
"""The label of pixels that do not count."""

SMALL = 10
"""Pixels of a region below which it is left out."""


class Pair(NamedTuple):
    """An image, and the file that its mask is made of."""

    image: Path
    mask: Path


class MaskConfig(DataSetConfig):
    """``size``: height and width in pixels, or one for both."""

    size: Size = (224, 224)


class MaskData(ImageData):
    """A layout of images with masks, whatever labels are made of them; there is one domain.

    Attributes
    ----------
    pixel_classes : the names of the numbers that `mask` gives, in their order
    things : those that regions are made of
    """

    pixel_classes: ClassVar[tuple[str, ...]]
    things: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *self.config.size)

    @abstractmethod
    def pairs(self, name: str) -> Sequence[Pair]:
        """The images of a split with their masks, in a fixed order."""

    @abstractmethod
    def mask(self, pair: Pair) -> np.ndarray:
        """Class numbers, and 255 where pixels do not count, as uint8 of the file's shape."""

    def checked_mask(self, pair: Pair) -> np.ndarray:
        """As `mask`; BenchError if it is not as large as the image."""
        mask, size = self.mask(pair), image_size(pair.image)
        if mask.shape != size:
            raise BenchError(
                f"{pair.mask}: is of {mask.shape} pixels (height, width), and its image "
                f"{pair.image.name} of {size}: fetch both anew, or remove both"
            )
        return mask

    def domains(self) -> list[str]:
        return [ONE]

    def files(self) -> Iterator[Path]:
        every = (file for name in self.splits(ONE) for pair in self.pairs(name) for file in pair)
        return iter(dict.fromkeys(every))

    def _check_split(self, domain: str, name: str) -> Iterator[str]:
        """Each mask that is wrong by itself, and then the images."""
        wrong = []
        try:
            for pair in self.pairs(name):
                try:
                    self.checked_mask(pair)
                except BenchError as error:
                    wrong.append(str(error))
        except BenchError as error:
            wrong.append(str(error))
        yield from wrong or super()._check_split(domain, name)

    def _key(self, name: str, settings: object) -> str:
        masks = [pair.mask for pair in self.pairs(name)]
        return derived_key(type(self), self.root, masks, [self._layout_settings(), settings])

    def _layout_settings(self) -> object:
        """All settings, but where the data are and what is made of the masks."""
        made = {"root", "size", *RegionConfig.model_fields, *BoxesConfig.model_fields}
        return self.config.model_dump(mode="json", exclude=made)


class PixelLabels(MaskData):
    """Labels are the masks: uint8 of shape (n, height, width), 255 where pixels do not count.

    They are resized to the nearest pixel, so that no number appears that was not there, and kept in
    a file of the cache, from which those that are asked for are read.
    """

    Config = MaskConfig
    task = "segmentation"
    dense = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.class_names = self.pixel_classes

    def split(self, domain: str, name: str) -> Split:
        pairs, size = self.pairs(name), self.config.size
        y = derived_masks(
            self._key(name, list(size)),
            len(pairs),
            size,
            lambda: (nearest(self.checked_mask(pair), size) for pair in pairs),
        )
        return Split(ImageFiles([pair.image for pair in pairs], size), y)


class RegionConfig(MaskConfig):
    """``least``: pixels of both sides of a region's box, in the image as it is; ``classes``: those
    that are taken, in the order of their numbers, by default all.
    """

    least: int = Field(224, ge=1)
    classes: ClassNames = ()


class Regions(MaskData):
    """Regions of classes, found on first use and kept in the cache."""

    Config = RegionConfig
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.class_names = config.classes or self.things
        for name in self.class_names:
            if name not in self.things:
                raise BenchError(
                    f"classes: {name!r} is none of the classes that regions are made of; "
                    f"{did_you_mean(name, self.things)}"
                )

    def regions(self, name: str) -> tuple[list[Pair], Tensor, Tensor]:
        """The pairs of a split, the regions in them and the images' sizes.

        A region is a row of the place of its pair, its class, and left, upper, right and lower
        edge in pixels, int64 of shape (regions, 6); sizes are (height, width) of each pair's image.
        """
        pairs = list(self.pairs(name))
        numbers = {self.pixel_classes.index(thing): k for k, thing in enumerate(self.things)}

        def find() -> dict[str, Tensor]:
            rows: list[tuple[int, ...]] = []
            sizes = []
            for i, pair in enumerate(pairs):
                mask = self.checked_mask(pair)
                sizes.append(mask.shape)
                rows += [(i, *row) for row in regions_of(mask, numbers, self.config.least)]
            return {
                "regions": torch.tensor(rows, dtype=torch.int64).view(-1, 6),
                "sizes": torch.tensor(sizes, dtype=torch.int64).view(-1, 2),
            }

        found = derived("regions", self._key(name, self.config.least), find)
        rows = found["regions"]
        taken = torch.full((len(self.things),), -1)
        for number, thing in enumerate(self.class_names):
            taken[self.things.index(thing)] = number
        rows = torch.cat([rows[:, :1], taken[rows[:, 1:2]], rows[:, 2:]], dim=1)
        return pairs, rows[rows[:, 1] >= 0], found["sizes"]


class RegionClasses(Regions):
    """Samples are the regions, cut out of the images and resized; labels are their classes.

    Regions of one image stay on one side where a stream divides samples.
    """

    task = "classification"

    def split(self, domain: str, name: str) -> Split:
        pairs, rows, _ = self.regions(name)
        if not len(rows):
            raise BenchError(
                f"{self.root}: its split {name!r} has no region whose sides have "
                f"{self.config.least} pixels: set 'least' to fewer"
            )
        files = [pairs[i].image for i in rows[:, 0].tolist()]
        return Split(ImageFiles(files, self.config.size, rows[:, 2:]), rows[:, 1].clone())


class RegionBoxesConfig(RegionConfig, BoxesConfig):
    """As `RegionConfig`; ``boxes``: the most that an image may have, by default that one has."""

    size: Size = (224, 224)


class RegionBoxes(Regions, BoxData):
    """Labels are the boxes of the regions; images without any are kept."""

    Config = RegionBoxesConfig
    config: Any
    task = "detection"
    dense = True

    def boxes(self, domain: str, name: str) -> Boxes:
        pairs, rows, sizes = self.regions(name)
        height, width = sizes[rows[:, 0]].float().unbind(dim=1)
        edges = rows[:, 2:].float() / torch.stack([width, height, width, height], dim=1)
        labels = torch.cat([rows[:, 1:2].float(), edges], dim=1)
        return Boxes([pair.image for pair in pairs], rows[:, 0], labels)


def regions_of(
    mask: np.ndarray, numbers: dict[int, int], least: int
) -> Iterator[tuple[int, int, int, int, int]]:
    """The regions of a mask: class, left, upper, right and lower edge, the last two outside.

    ``numbers``: of the mask's classes that count the class that is given. Regions come class by
    class in the order of the numbers, and from the top.
    """
    return (region.row for region in shapes_of(mask, numbers, least))


class Region(NamedTuple):
    """A region's row, as of `regions_of`; which pixels of its box are inside, bool of the box's
    height and width; and how many there are.
    """

    row: tuple[int, int, int, int, int]
    inside: np.ndarray
    pixels: int


def shapes_of(mask: np.ndarray, numbers: dict[int, int], least: int) -> Iterator[Region]:
    """As `regions_of`, with the shape of each region."""
    from scipy import ndimage

    present = set(np.unique(mask).tolist())
    for number, given in sorted(numbers.items(), key=lambda pair: pair[1]):
        if number not in present:
            continue
        parts, _ = ndimage.label(mask == number, np.ones((3, 3)))
        pixels = np.bincount(parts.ravel())
        for part, place in enumerate(ndimage.find_objects(parts), start=1):
            down, across = place
            sides = (down.stop - down.start, across.stop - across.start)
            if min(sides) >= least and pixels[part] >= SMALL:
                row = (given, across.start, down.start, across.stop, down.stop)
                yield Region(row, parts[place] == part, int(pixels[part]))


# --- masks that have Cityscapes' numbers ---------------------------------------------------------

STREET = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
    19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle",
    33: "bicycle",
}  # fmt: skip
"""The classes that are evaluated, by their number in masks (``id``); they are numbered from 0 in
this order (``trainId``), Cordts et al., CVPR 2016."""

STREET_CLASSES = tuple(STREET.values())
LICENCE_PLATE = 34
"""What GTA5's masks have for it; Cityscapes has -1, which no gray value is."""


@cache
def _of_ids() -> np.ndarray:
    table = np.full(256, VOID, dtype=np.uint8)
    table[list(STREET)] = np.arange(len(STREET))
    return table


@cache
def _of_train_ids() -> np.ndarray:
    table = np.full(256, VOID, dtype=np.uint8)
    table[: len(STREET)] = np.arange(len(STREET))
    return table


def street_classes(mask: np.ndarray, file: Path, train_ids: bool) -> np.ndarray:
    """The classes of a mask of Cityscapes' ids or trainIds; BenchError for other numbers."""
    highest = len(STREET) - 1 if train_ids else LICENCE_PLATE
    wrong = [n for n in np.unique(mask).tolist() if n > highest and n != VOID]
    if wrong:
        raise BenchError(
            f"{file}: has the number {wrong[0]}, and {'trainIds' if train_ids else 'ids'} of "
            f"Cityscapes go from 0 to {highest}, or are 255: fetch it anew, as PNG and as it was "
            "published"
        )
    return (_of_train_ids() if train_ids else _of_ids())[mask]


def first_of(files: Sequence[Path], cure: str) -> Path:
    """The first of the files that is there; BenchError that names the first if none is."""
    for file in files:
        if file.is_file():
            return file
    raise BenchError(f"{files[0]}: is not there: {cure}")
