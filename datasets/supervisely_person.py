"""Supervisely Person: photos with masks of persons, in Supervisely's format."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from functools import cached_property
from typing import Any

import numpy as np

from bench import BenchError, register
from bench.errors import shown

from ._images import is_image
from ._masks import (
    ONE,
    VOID,
    MaskData,
    Pair,
    PixelLabels,
    RegionBoxes,
    RegionClasses,
    first_of,
)
from ._tables import read_json

IMAGES, LABELS = "img", "ann"
BACKGROUND, PERSON = 0, 1
CLASSES = {"person_bmp": PERSON, "person_poly": PERSON, "neutral": VOID}
"""What objects of a class are in masks."""

UNMARKED = "not-marked-people"
"""A tag: there are persons that no object marks."""


class _SuperviselyPerson(MaskData):
    """ROOT/ds*/img/NAME.png (or .jpg) and ROOT/ds*/ann/NAME.png.json (or NAME.json).

    Objects of class neutral do not count; nor does what no object marks in an image that is tagged
    not-marked-people.
    """

    config: Any
    pixel_classes = ("background", "person")
    things = ("person",)

    def pairs(self, name: str) -> list[Pair]:
        return self._pairs[name]

    @cached_property
    def _pairs(self) -> dict[str, list[Pair]]:
        found = []
        for image in sorted(self.root.glob(f"*/{IMAGES}/*")):
            if is_image(image.name):
                folder = image.parent.parent / LABELS
                files = [folder / f"{name}.json" for name in (image.name, image.stem)]
                made = first_of(files, f"fetch the annotation of {image}, or remove the image")
                found.append(Pair(image, made))
        if not found:
            raise BenchError(
                f"root {self.root}: has no images: this layout is ROOT/ds*/{IMAGES}/*.png and "
                f"ROOT/ds*/{LABELS}/*.json"
            )
        return {ONE: found}

    def mask(self, pair: Pair) -> np.ndarray:
        content = read_json(pair.mask)
        try:
            size = (int(content["size"]["height"]), int(content["size"]["width"]))
            objects, tags = content["objects"], content.get("tags", [])
            unmarked = any(tag["name"] == UNMARKED for tag in tags)
            mask = np.full(size, VOID if unmarked else BACKGROUND, dtype=np.uint8)
            for i, thing in enumerate(objects):
                _draw(mask, thing, f"{pair.mask}: object {i}")
        except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
            raise BenchError(
                f"{pair.mask}: is no annotation in Supervisely's format ({error!r}): fetch it anew"
            ) from error
        return mask


def _draw(mask: np.ndarray, thing: Any, place: str) -> None:
    """Write an object's number where it is."""
    title = thing["classTitle"]
    if title not in CLASSES:
        raise BenchError(
            f"{place}: class {shown(title)} is none of {', '.join(CLASSES)}: correct it"
        )
    if thing.get("bitmap"):
        inside = _bitmap(thing["bitmap"]["data"], place)
        left, upper = map(int, thing["bitmap"]["origin"])
        height, width = inside.shape
        part = mask[upper : upper + height, left : left + width]
        if left < 0 or upper < 0 or part.shape != inside.shape:
            raise BenchError(
                f"{place}: its bitmap of {width} x {height} pixels at ({left}, {upper}) leaves "
                f"the image of {mask.shape[1]} x {mask.shape[0]}: fetch the annotation anew"
            )
        part[inside] = CLASSES[title]
    else:
        mask[_polygon(thing["points"], mask.shape)] = CLASSES[title]


def _bitmap(data: str, place: str) -> np.ndarray:
    """Where a bitmap is: its alpha channel, else what is not black; bool (height, width)."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(zlib.decompress(base64.b64decode(data)))) as image:
            if "A" in image.getbands() or "transparency" in image.info:
                return np.array(image.convert("RGBA"))[..., 3] > 0
            return np.array(image.convert("L")) > 0
    except (binascii.Error, zlib.error, OSError, SyntaxError, TypeError, ValueError) as error:
        raise BenchError(
            f"{place}: its bitmap cannot be read ({error}): fetch the annotation anew"
        ) from error


def _polygon(points: Any, shape: tuple[int, int]) -> np.ndarray:
    """Where a polygon is, without its holes; bool (height, width)."""
    from PIL import Image, ImageDraw

    drawn = Image.new("L", (shape[1], shape[0]))
    pen = ImageDraw.Draw(drawn)
    for outlines, value in (([points["exterior"]], 1), (points.get("interior", []), 0)):
        for outline in outlines:
            pen.polygon([(float(x), float(y)) for x, y in outline], fill=value)
    return np.array(drawn) > 0


@register("dataset", "supervisely-person")
class SuperviselyPerson(PixelLabels, _SuperviselyPerson):
    """5,711 photos with persons: ROOT/ds*/img/NAME.png and ROOT/ds*/ann/NAME.png.json.

    Classes are background and person. Objects of class neutral, and what no object marks in an
    image that is tagged not-marked-people, are void.
    """


@register("dataset", "supervisely-person-cls")
class SuperviselyPersonClasses(RegionClasses, _SuperviselyPerson):
    """Persons cut out of Supervisely Person, as EdgeTA's SuperviselyPersonCls: for ``several``."""


@register("dataset", "supervisely-person-det")
class SuperviselyPersonBoxes(RegionBoxes, _SuperviselyPerson):
    """Boxes of the persons of Supervisely Person, as EdgeTA's SuperviselyPersonDet."""
