"""Images with boxes around things, whatever file the boxes come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataSetConfig, Split

from ._images import ImageData, ImageFiles, Size

ABSENT = -1.0
"""What rows of labels have that are no box."""

ROUNDING = 0.01
"""How far an edge may lie outside its image, as annotations are rounded."""


class BoxesConfig(DataSetConfig):
    """``size``: height and width of images in pixels, or one for both; ``boxes``: the most that an
    image may have, by default the most that one has.
    """

    size: Size = (128, 128)
    boxes: int | None = Field(None, ge=1, le=10_000)


@dataclass(frozen=True)
class Boxes:
    """Image files, and the boxes of all: float32 of shape (boxes, 5), rows of labels as of
    `BoxData`; ``image``, int64 of shape (boxes,), is the place of each one's file, in rising order.
    """

    files: Sequence[Path]
    image: Tensor
    rows: Tensor


class BoxData(ImageData):
    """Images with boxes; labels are float32 of shape (n, boxes, 5), rows of -1 where there is none.

    A row is the class, then x1, y1, x2 and y2 as shares of the width and height.
    """

    task = "detection"
    dense = True
    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)

    @abstractmethod
    def boxes(self, domain: str, name: str) -> Boxes:
        """The images of a split with their boxes."""

    def split(self, domain: str, name: str) -> Split:
        found, most = self.boxes(domain, name), self.config.boxes or self._most_boxes
        counts = torch.bincount(found.image, minlength=len(found.files))
        if len(counts) and int(counts.max()) > most:
            file = found.files[int((counts > most).nonzero()[0])]
            raise BenchError(
                f"{file}: has {int(counts[counts > most][0])} boxes, and the setting boxes is "
                f"{most}: raise it, or leave it out"
            )
        y = torch.full((len(found.files), most, 5), ABSENT)
        starts = counts.cumsum(0) - counts
        y[found.image, torch.arange(len(found.image)) - starts[found.image]] = found.rows
        return Split(ImageFiles(found.files, self.config.size), y)

    def described(self, split: Split, position: int) -> str:
        found = split.y[position, :, 0]
        names = [self.class_names[int(i)] for i in found[found >= 0].tolist()]
        return ",".join(dict.fromkeys(names))

    @cached_property
    def _most_boxes(self) -> int:
        every = (self.boxes(d, s).image for d in self.domains() for s in self.splits(d))
        return max(int(torch.bincount(image).max()) if len(image) else 1 for image in every)


@dataclass
class Boxed:
    """An image file and its boxes: class, and left, upper, right and lower edge in [0, 1]."""

    image: Path
    boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)


class BoxedImages(BoxData):
    """Images with boxes that are read image by image."""

    @abstractmethod
    def boxed(self, domain: str) -> Sequence[Boxed]:
        """The images of a domain with their boxes."""

    def boxes(self, domain: str, name: str) -> Boxes:
        samples = self.boxed(domain)
        rows = [row for sample in samples for row in sample.boxes]
        image = [i for i, sample in enumerate(samples) for _ in sample.boxes]
        return Boxes(
            [sample.image for sample in samples],
            torch.tensor(image, dtype=torch.int64),
            torch.tensor(rows).view(-1, 5),
        )


def box(
    number: int, corners: Sequence[float], classes: int, place: str
) -> tuple[float, float, float, float, float]:
    """A row of labels; BenchError, naming the ``place``, for a box outside image or classes."""
    if not 0 <= number < classes:
        raise BenchError(
            f"{place}: class {number}, and {classes} classes are numbered from 0 to {classes - 1}: "
            "correct it"
        )
    x1, y1, x2, y2 = corners
    if not (-ROUNDING <= x1 < x2 <= 1 + ROUNDING and -ROUNDING <= y1 < y2 <= 1 + ROUNDING):
        shown = ", ".join(f"{edge:.4g}" for edge in corners)
        raise BenchError(
            f"{place}: the box {shown} (left, upper, right, lower, as shares) is empty or leaves "
            "its image: correct it"
        )
    x1, y1, x2, y2 = (min(max(edge, 0.0), 1.0) for edge in corners)
    return float(number), x1, y1, x2, y2
