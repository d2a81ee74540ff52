"""Images with boxes around things, whatever file the boxes come from."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

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


@dataclass
class Boxed:
    """An image file and its boxes: class, and left, upper, right and lower edge in [0, 1]."""

    image: Path
    boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)


class BoxData(ImageData):
    """Images with boxes; labels are float32 of shape (n, boxes, 5), rows of -1 where there is none.

    A row is the class, then x1, y1, x2 and y2 as shares of the width and height.
    """

    task = "detection"
    dense = True
    config: BoxesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)

    @abstractmethod
    def boxed(self, domain: str) -> Sequence[Boxed]:
        """The images of a domain with their boxes."""

    def split(self, domain: str, name: str) -> Split:
        samples = self.boxed(domain)
        most = self.config.boxes or self._most_boxes
        y = torch.full((len(samples), most, 5), ABSENT)
        for row, sample in enumerate(samples):
            if len(sample.boxes) > most:
                raise BenchError(
                    f"{sample.image}: has {len(sample.boxes)} boxes, and the setting boxes is "
                    f"{most}: raise it, or leave it out"
                )
            if sample.boxes:
                y[row, : len(sample.boxes)] = torch.tensor(sample.boxes)
        return Split(ImageFiles([sample.image for sample in samples], self.config.size), y)

    def described(self, split: Split, position: int) -> str:
        found = split.y[position, :, 0]
        names = [self.class_names[int(i)] for i in found[found >= 0].tolist()]
        return ",".join(dict.fromkeys(names))

    @property
    def _most_boxes(self) -> int:
        return max(len(s.boxes) for domain in self.domains() for s in self.boxed(domain)) or 1


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
