"""Images with a mask each, whose pixels are class numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataSetConfig, Split, register
from bench.io.folder_files import files_below

from ._images import (
    IMAGES,
    ImageData,
    ImageFiles,
    Size,
    decode_colors,
    decode_mask,
    image_folders,
    image_size,
    is_image,
)
from ._tables import read_table

IGNORED = 255
"""The label of pixels that do not count."""

MASKS, CLASSES, COLORS = "labels", "classes.txt", "colors.csv"
VOID_NAMES = ("void", "unlabelled", "unlabeled")
"""Names in ``colors.csv`` of colors that do not count."""


class SegmentationPairsConfig(DataSetConfig):
    """``size``: height and width in pixels, or one for both.

    ``void``: the number of pixels that do not count, beside 255. ``classes``: how many there are,
    numbered from 0, by default as many as the masks' greatest number says; or ``classes.txt`` in
    the root names them, one a line. ``ids``: the numbers in the masks in the order of the classes,
    all others void, as [7, 8, 11] where 7 is the first class.
    """

    size: Size = (64, 64)
    void: int = Field(255, ge=0, le=255)
    classes: int | None = Field(None, ge=2, le=255)
    ids: tuple[Annotated[int, Field(ge=0, le=255)], ...] = ()

    @pydantic.model_validator(mode="after")
    def _ids_are_all(self) -> SegmentationPairsConfig:
        if len(set(self.ids)) < len(self.ids) or len(self.ids) == 1:
            raise ValueError("ids: name two different numbers or more")
        if self.ids and self.classes not in (None, len(self.ids)):
            raise ValueError(
                f"classes is {self.classes}, and ids has {len(self.ids)}: leave it out"
            )
        return self


@register("dataset", "segmentation-pairs")
class SegmentationPairs(ImageData):
    """Images and masks of equal names in ROOT/DOMAIN/images and ROOT/DOMAIN/labels, or in ROOT.

    A mask is a PNG of gray values or with a palette, of its image's height and width; the value of
    a pixel is its class. Or its colors are classes: ROOT/colors.csv has the titles name, r, g, b,
    and a line for each class in their order; colors named void do not count. Images and masks are
    resized, masks to the nearest pixel, so that no number appears that was not there. Labels are
    uint8 of shape (n, height, width), 255 for void.
    """

    Config = SegmentationPairsConfig
    config: SegmentationPairsConfig
    task = "segmentation"
    dense = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)
        self._folders = image_folders(
            self.root, f"ROOT/DOMAIN/{IMAGES}/NAME.jpg and ROOT/DOMAIN/{MASKS}/NAME.png"
        )

    def domains(self) -> list[str]:
        return list(self._folders)

    def split(self, domain: str, name: str) -> Split:
        pairs = self._pairs[domain]
        y = torch.empty(len(pairs), *self.config.size, dtype=torch.uint8)
        for i, pair in enumerate(pairs):  # not in a list of int64: eight times as large
            y[i] = self._label(*pair)
        return Split(ImageFiles([image for image, _ in pairs], self.config.size), y)

    def files(self) -> Iterator[Path]:
        yield from (f for f in (self.root / CLASSES, self.root / COLORS) if f.is_file())
        yield from (file for pairs in self._pairs.values() for pair in pairs for file in pair)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of ``colors.csv`` or ``classes.txt``, else their numbers."""
        if self._colors is not None:
            return tuple(self._colors[0])
        file = self.root / CLASSES
        if file.is_file():
            names = tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
            if self.config.ids and len(self.config.ids) != len(names):
                raise BenchError(
                    f"{file}: names {len(names)} classes, and the setting ids has "
                    f"{len(self.config.ids)}: name each"
                )
            if self.config.classes not in (None, len(names)):
                raise BenchError(
                    f"{file}: names {len(names)} classes, and the setting classes is "
                    f"{self.config.classes}: leave the setting out"
                )
            return names
        if self.config.ids:
            return tuple(map(str, self.config.ids))
        if self.config.classes is not None:
            return tuple(map(str, range(self.config.classes)))
        highest = -1
        for pairs in self._pairs.values():
            for _, mask in pairs:
                numbers = decode_mask(mask, self.config.size)[0]
                highest = max([highest, *(numbers - {self.config.void, IGNORED})])
        if highest < 1:
            raise BenchError(
                f"root {self.root}: its masks have no class above {highest}: set 'void' to the "
                "number of pixels that do not count, or correct the masks"
            )
        return tuple(map(str, range(highest + 1)))

    @cached_property
    def _colors(self) -> tuple[list[str], dict[tuple[int, int, int], int]] | None:
        """Names of classes and numbers of colors, where masks are in color."""
        file = self.root / COLORS
        if not file.is_file():
            return None
        names: list[str] = []
        numbers: dict[tuple[int, int, int], int] = {}
        for row in read_table(file):
            color = tuple(row.text(c) for c in "rgb")
            if not all(c.isdecimal() and int(c) < 256 for c in color):
                raise BenchError(
                    f"{row.place}: color {', '.join(color)}: give r, g, b from 0 to 255"
                )
            name = row.text("name")
            if name.lower() not in VOID_NAMES and name not in names:
                names.append(name)
            number = names.index(name) if name in names else IGNORED
            numbers[int(color[0]), int(color[1]), int(color[2])] = number
        if not 2 <= len(names) < IGNORED:
            raise BenchError(f"{file}: names {len(names)} classes: name from 2 to {IGNORED - 1}")
        return names, numbers

    @cached_property
    def _pairs(self) -> dict[str, list[tuple[Path, Path]]]:
        """The image and the mask of every sample."""
        found = {}
        for domain, folder in self._folders.items():
            images = [file for file in files_below(folder / IMAGES) if is_image(file.name)]
            masks = {file.stem: file for file in files_below(folder / MASKS)}
            if not images:
                raise BenchError(f"{folder / IMAGES}: domain {domain!r} has no images: add some")
            for image in images:
                if image.stem not in masks:
                    raise BenchError(
                        f"{image}: has no mask {folder / MASKS / image.stem}.png: add it, or "
                        "remove the image"
                    )
            found[domain] = [(image, masks[image.stem]) for image in images]
        return found

    def _label(self, image: Path, mask: Path) -> Tensor:
        """A mask, its numbers checked."""
        if image_size(image) != image_size(mask):
            raise BenchError(
                f"{mask}: is of {image_size(mask)} pixels (height, width), and its image "
                f"{image.name} of {image_size(image)}: make the mask as large as the image"
            )
        if self._colors is not None:
            return decode_colors(mask, self.config.size, self._colors[1])
        numbers, y = decode_mask(mask, self.config.size)
        if self.config.ids:
            classes = torch.full((256,), IGNORED)
            classes[torch.tensor(self.config.ids)] = torch.arange(len(self.config.ids))
            return classes[y]
        n = len(self.class_names)
        wrong = sorted(i for i in numbers - {self.config.void, IGNORED} if i >= n)
        if wrong:
            raise BenchError(
                f"{mask}: has the number {wrong[0]}, and {n} classes are numbered from 0 to "
                f"{n - 1}: correct it, or set 'void' or 'classes'"
            )
        y[y == self.config.void] = IGNORED
        return y
