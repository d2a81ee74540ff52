"""Objects of images with masks, each prompted by its box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataChoice, DataSetConfig, LazyInputs, Split, load, register
from bench.contracts.data import Inputs, SampleType, subset, take
from bench.contracts.dataset import Part
from bench.errors import did_you_mean
from bench.io.folder_files import FilesDigest

from ._derived import derived, derived_key, derived_masks
from ._images import ImageData, Size
from ._masks import VOID, Region, shapes_of
from ._samples import sample_names
from ._tables import ClassNames

BACKGROUND, OBJECT = 0, 1
CLASSES = ("background", "object")


class BoxPromptsConfig(DataSetConfig):
    """Of which data the objects are, and which of them count.

    root : the folder that the root of ``data`` is in, unless that is given in full
    data : a data set of images with masks and its settings, as ``{name: cityscapes, root:
        cityscapes}``
    classes : those whose regions are objects; by default all but one that is called background
    least : pixels of both sides of an object's box, in the resized image
    objects : the most of one image; the largest are taken
    size : height and width of images in pixels, or one for both; by default that of ``data``
    """

    root: str = Field(".", min_length=1)
    data: DataChoice
    classes: ClassNames = ()
    least: int = Field(8, ge=1)
    objects: int = Field(4, ge=1, le=1000)
    size: Size | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        """The settings with the whole root of the data, and with the size."""
        if not isinstance(given, Mapping) or "data" not in given:
            return given
        data = given["data"]
        data = {"name": data.name, **data.config} if isinstance(data, DataChoice) else data
        if not isinstance(data, Mapping):
            raise ValueError(f"data: {data!r}: give it as {{name: NAME, root: DIR}}")
        root = Path(str(given.get("root", "."))) / str(data.get("root", "."))
        size = {"size": given["size"]} if given.get("size") is not None else {}
        return {**given, "root": ".", "data": {**data, "root": str(root), **size}}


@register("dataset", "box-prompts")
class BoxPrompts(ImageData):
    """Objects of images with masks, each with its box as a prompt, for models such as sam-prompted.

    A sample is an image with one box, a dict of ``image``, float32 (n, 3, height, width), and
    ``box``, float32 (n, 4): left, upper, right and lower edge in pixels of the image, the last two
    outside. Its label is the mask of the object, uint8 of shape (n, height, width): 1 object, 0
    background, 255 where the data's masks are void.

    Objects are regions of a class that hang together, corners included, in the masks as ``data``
    resizes them, without those of a few pixels, and boxes are the tightest around them: things of
    one class that touch are one object. Images without objects have no samples; those of one image
    stay on one side where a stream divides samples. Masks are kept in a file of the cache.
    """

    Config = BoxPromptsConfig
    config: BoxPromptsConfig
    task = "segmentation"
    dense = True
    class_names = CLASSES

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        data_class = load("dataset", config.data.name)
        task = data_class.task_of(data_class.Config.model_validate(config.data.config))
        if task != "segmentation":
            raise BenchError(
                f"box-prompts: data {config.data.name!r} is {task}, and objects are regions of "
                "masks: take data for segmentation"
            )
        self.data = config.data.build()
        self.input_shape = tuple(self.data.input_shape)
        self.families = self.data.families  # type: ignore[misc]

    def domains(self) -> Sequence[str]:
        return self.data.domains()

    def splits(self, domain: str) -> Sequence[str]:
        return self.data.splits(domain)

    def split(self, domain: str, name: str) -> Split:
        whole, numbers = self.data.split(domain, name), self._numbers()
        _require_images(whole.x, self.config.data.name)
        c = self.config
        settings = [c.data.content_digest(), domain, name, numbers, c.least, c.objects]
        key = derived_key(type(self), self.root, [], settings)

        def objects(mask: Tensor) -> list[Region]:
            found = shapes_of(_array(mask), dict.fromkeys(numbers, OBJECT), c.least)
            return sorted(found, key=lambda region: -region.pixels)[: c.objects]

        def find() -> dict[str, Tensor]:
            rows = [(i, *each.row[1:]) for i, mask in enumerate(whole.y) for each in objects(mask)]
            return {"objects": torch.tensor(rows, dtype=torch.int64).view(-1, 5)}

        def masks() -> Iterator[Tensor]:
            for i in rows[:, 0].unique().tolist():
                for each in objects(whole.y[i]):
                    yield _mask(_array(whole.y[i]), each)

        rows = derived("objects", key, find)["objects"]
        if not len(rows):
            raise BenchError(
                f"box-prompts: domain {domain!r}: its split {name!r} has no region whose box has "
                f"{c.least} pixels a side: set 'least' to fewer, or name other 'classes'"
            )
        y = derived_masks(key, len(rows), (whole.y.shape[1], whole.y.shape[2]), masks)
        return Split(PromptedImages(whole.x, rows[:, 0], rows[:, 1:].float()), y)

    def _numbers(self) -> list[int]:
        """The numbers of the classes whose regions are objects."""
        known = list(self.data.class_names)
        for name in self.config.classes:
            if name not in known:
                raise BenchError(
                    f"classes: {name!r} is none of {self.config.data.name}'s; "
                    f"{did_you_mean(name, known)}"
                )
        taken = self.config.classes or [name for name in known if name.lower() != CLASSES[0]]
        return sorted(known.index(name) for name in taken)

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        return list(self.data.corruptions(part, family))

    def require_family(self, family: str) -> None:
        self.data.require_family(family)

    def files(self) -> Iterator[Path]:
        return self.data.files()

    def digest(self) -> FilesDigest:
        return self.data.digest()

    def check(self) -> Iterator[str]:
        """What is wrong with the data, and then with the objects in them."""
        problems = list(self.data.check())
        yield from problems or super().check()


class PromptedImages(LazyInputs):
    """Images with a box each, as ``image`` and ``box``.

    ``images``: those that objects are in; ``places``: of each object its image, int64 of shape
    (objects,); ``boxes``: float32 of shape (objects, 4), see `BoxPrompts`.
    """

    def __init__(self, images: Inputs, places: Tensor, boxes: Tensor) -> None:
        super().__init__(torch.arange(len(places)))
        self._images, self._places, self._boxes = images, places, boxes

    def read(self, positions: Tensor) -> Inputs:
        images = take(self._images, self._places[positions])
        return {"image": images, "box": self._boxes[positions]}

    def names(self, positions: Tensor) -> list[str]:
        return sample_names(subset(self._images, self._places[positions]))

    @property
    def sample_types(self) -> dict[str, SampleType]:
        x = self._images
        image = x.sample_types[""] if isinstance(x, LazyInputs) else (tuple(x.shape[1:]), x.dtype)
        return {"image": image, "box": ((4,), torch.float32)}

    def settings(self) -> Any:
        of_images = subset(self._images, self._places[self.positions])
        more = of_images.settings() if isinstance(of_images, LazyInputs) else None
        return [self._boxes[self.positions].tolist(), more]


def _require_images(x: Inputs, name: str) -> None:
    """BenchError for samples that are not images alone."""
    named = list(x.sample_types) if isinstance(x, LazyInputs) else list(x) * isinstance(x, dict)
    if any(named):
        raise BenchError(
            f"box-prompts: samples of data {name!r} are {', '.join(named)}: take data whose "
            "samples are images alone"
        )


def _array(mask: Tensor) -> np.ndarray:
    return mask.to(torch.uint8).numpy()


def _mask(mask: np.ndarray, region: Region) -> Tensor:
    """An object's label; ``mask``: that of its image."""
    _, left, upper, right, lower = region.row
    made = np.where(mask == VOID, VOID, BACKGROUND).astype(np.uint8)
    made[upper:lower, left:right][region.inside] = OBJECT
    return torch.from_numpy(made)
