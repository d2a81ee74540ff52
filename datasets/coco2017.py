"""COCO 2017: photos with boxes of 80 classes, as published by Lin et al. (ECCV 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Split, register
from bench.errors import shown

from ._boxes import BoxData, Boxes, BoxesConfig, box
from ._derived import derived, derived_key
from ._images import ImageData, ImageFiles, Size
from ._tables import ClassNames, read_json

ONE, ANNOTATIONS = "all", "annotations"
PARTS = {"train": "train2017", "test": "val2017"}
"""The folder of each split: the boxes of the published test split are not public."""


class Coco2017Config(BoxesConfig):
    """``size``: height and width in pixels, or one for both; ``boxes``: the most that an image may
    have, by default the most that one has.
    """

    size: Size = (224, 224)


class Coco2017ClassesConfig(Coco2017Config):
    """``size``: height and width in pixels, or one for both; ``least``: pixels of both sides of an
    object's box, in the image as it is; ``classes``: those that are taken, in the order of their
    numbers, by default all.
    """

    least: int = Field(224, ge=1)
    classes: ClassNames = ()


class _Coco2017(ImageData):
    """ROOT/{train,val}2017/*.jpg and ROOT/annotations/instances_{train,val}2017.json.

    The large files of annotations are read once, and what is needed of them is kept in the cache.
    Boxes of crowds, and the few that are empty, are left out.
    """

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)

    def domains(self) -> list[str]:
        return [ONE]

    def splits(self, domain: str) -> list[str]:
        return list(PARTS)

    def annotations(self, name: str) -> Path:
        """The file of a split's annotations."""
        return self.root / ANNOTATIONS / f"instances_{PARTS[name]}.json"

    def files(self) -> Iterator[Path]:
        for name in PARTS:
            yield self.annotations(name)
            yield from self.images(name)

    @cached_property
    def _content(self) -> dict[str, dict[str, Any]]:
        found = {}
        for name in PARTS:
            file = self.annotations(name)
            if not file.is_file():
                raise BenchError(
                    f"{file}: is not there: unpack annotations_trainval2017.zip into {self.root}"
                )
            key = derived_key(_Coco2017, self.root, [file], "boxes")
            found[name] = derived("boxes", key, lambda file=file: _compact(file))  # type: ignore[misc]
        first, second = (found[name]["categories"] for name in PARTS)
        if first != second:
            raise BenchError(
                f"{self.annotations('test')}: has other categories than "
                f"{self.annotations('train')}: fetch both anew"
            )
        return found

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of all classes, in the order of their ids."""
        return tuple(self._content["train"]["categories"])

    def images(self, name: str) -> list[Path]:
        """The images of a split, in the order of the annotations."""
        return self._images[name]

    @cached_property
    def _images(self) -> dict[str, list[Path]]:
        found = {}
        for name, part in PARTS.items():
            folder = self.root / part
            there = {f.name for f in folder.iterdir()} if folder.is_dir() else set()
            for file in self._content[name]["images"]:
                if file not in there:
                    raise BenchError(
                        f"{folder / file}: is not there, and {self.annotations(name)} names it: "
                        f"unpack {part}.zip into {self.root}"
                    )
            found[name] = [folder / file for file in self._content[name]["images"]]
        return found

    def objects(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Of each object of a split its image's place and its row of labels, and images' sizes."""
        content = self._content[name]
        return content["image"], content["rows"], content["sizes"]


@register("dataset", "coco2017")
class Coco2017(_Coco2017, BoxData):
    """COCO 2017 with boxes: ROOT/{train,val}2017, ROOT/annotations/instances_{train,val}2017.json.

    Classes are the 80 categories in the order of their ids. Split ``test`` is the published
    validation split, as boxes of the published test split are not public. Images without boxes are
    kept, and boxes of crowds left out.
    """

    Config = Coco2017Config

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The categories."""
        return self.categories

    def boxes(self, domain: str, name: str) -> Boxes:
        image, rows, _ = self.objects(name)
        return Boxes(self.images(name), image, rows)


@register("dataset", "coco2017-cls")
class Coco2017Classes(_Coco2017):
    """Objects of COCO 2017, cut out of its images by their boxes, as EdgeTA's COCO crops.

    Objects of one image stay on one side where a stream divides samples.
    """

    Config = Coco2017ClassesConfig
    task = "classification"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The categories, or those of the setting."""
        for name in self.config.classes:
            if name not in self.categories:
                raise BenchError(f"classes: {name!r} is no category of {self.annotations('train')}")
        return self.config.classes or self.categories

    def split(self, domain: str, name: str) -> Split:
        image, rows, sizes = self.objects(name)
        height, width = sizes[image].float().unbind(dim=1)
        edges = rows[:, 1:] * torch.stack([width, height, width, height], dim=1)
        crops = torch.cat([edges[:, :2].round(), edges[:, 2:].round()], dim=1).long()
        number = torch.full((len(self.categories),), -1)
        for place, taken in enumerate(self.class_names):
            number[self.categories.index(taken)] = place
        y = number[rows[:, 0].long()]
        large = (crops[:, 2:] - crops[:, :2]).amin(dim=1) >= self.config.least
        kept = (large & (y >= 0)).nonzero().squeeze(1)
        if not len(kept):
            raise BenchError(
                f"{self.annotations(name)}: has no object whose sides have {self.config.least} "
                "pixels: set 'least' to fewer"
            )
        files = self.images(name)
        chosen = [files[i] for i in image[kept].tolist()]
        return Split(ImageFiles(chosen, self.config.size, crops[kept]), y[kept])


def _compact(file: Path) -> dict[str, Any]:
    """What is needed of a file of annotations: names of images, sizes, objects, categories."""
    content = read_json(file)
    try:
        categories = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        images = {int(i["id"]): i for i in content["images"]}
        names = [str(i["file_name"]) for i in images.values()]
        sizes = [(int(i["height"]), int(i["width"])) for i in images.values()]
        annotations = content["annotations"]
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(
            f"{file}: is no file of COCO's annotations ({error!r}): fetch it anew"
        ) from error
    if len(images) < len(content["images"]) or not images or not categories:
        raise BenchError(
            f"{file}: has {len(images)} images of different ids, {len(content['images'])} images "
            f"and {len(categories)} categories: fetch it anew"
        )
    ids = sorted(categories)
    number, place = {c: i for i, c in enumerate(ids)}, {c: i for i, c in enumerate(images)}
    found: list[tuple[int, tuple[float, ...]]] = []
    seen: set[Any] = set()
    for i, made in enumerate(annotations):
        where = f"{file}: annotation {i}"
        row = _row(made, where, number, place, sizes)
        if made.get("id") in seen:
            raise BenchError(f"{where}: id {made['id']} is there twice: remove one, or fetch anew")
        seen.add(made.get("id"))
        found += [row] if row else []
    found.sort(key=lambda pair: pair[0])
    return {
        "categories": [categories[c] for c in ids],
        "images": names,
        "sizes": torch.tensor(sizes, dtype=torch.int64).view(-1, 2),
        "image": torch.tensor([image for image, _ in found], dtype=torch.int64),
        "rows": torch.tensor([row for _, row in found]).view(-1, 5),
    }


def _row(
    made: Any, where: str, number: dict[int, int], place: dict[int, int],
    sizes: list[tuple[int, int]],
) -> tuple[int, tuple[float, ...]] | None:  # fmt: skip
    """An object's image and labels; None for a crowd, and for a box without area."""
    try:
        x, y, width, height = map(float, made["bbox"])
        image, category = place[made["image_id"]], made["category_id"]
    except (KeyError, TypeError, ValueError) as error:
        raise BenchError(
            f"{where} is {shown(made)}: it needs bbox [x, y, width, height] and the image_id of an "
            "image that is there"
        ) from error
    if category not in number:
        raise BenchError(f"{where}: category_id {shown(category)} is no category: correct it")
    if made.get("iscrowd") or width <= 0 or height <= 0:
        return None
    down, across = sizes[image]
    corners = (x / across, y / down, (x + width) / across, (y + height) / down)
    return image, box(number[category], corners, len(number), where)
