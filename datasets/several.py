"""Several data sets as one, so that a stream goes from the domains of some to those of others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pydantic
import torch
from torch import Tensor

from bench import BenchError, DataChoice, DataSet, DataSetConfig, Split, load, register
from bench.contracts.dataset import Part
from bench.io.digest import digest
from bench.io.folder_files import FilesDigest

from ._derived import derived_masks
from ._images import ImageData, Size
from ._texts import TextData

VOID = 255
BY_NAME = ("classification", "segmentation", "detection", "visual-question-answering")
"""Tasks whose labels can be numbered anew."""


class Sets(pydantic.RootModel[dict[str, DataChoice]], frozen=True):
    """Data sets with their settings, by name; they count with their contents, wherever they lie."""

    root: dict[str, DataChoice] = pydantic.Field(min_length=1)

    def content_digest(self) -> str:
        """Digest of the contents of all."""
        return digest([[name, choice.content_digest()] for name, choice in self.root.items()])


class SeveralConfig(DataSetConfig):
    """Which data sets are joined.

    root : the folder that the roots of the sets are in, unless they are given in full
    sets : data sets with their settings, as ``[{name: gta5, root: gta5}, {name: cityscapes, root:
        cityscapes}]``, or under names of your own: ``{here: {name: image-folder, root: a}, ...}``
    size : height and width of images in pixels, or one for both, for all sets; by default each has
        its own, which must be the same
    """

    root: str = pydantic.Field(".", min_length=1)
    sets: Sets
    size: Size | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        """The settings with the whole root of each set, and with the common size."""
        if not isinstance(given, Mapping) or "sets" not in given:
            return given
        sets = {}
        for name, each in _named(given["sets"]):
            each = {"name": each.name, **each.config} if isinstance(each, DataChoice) else each
            if not isinstance(each, Mapping):
                raise ValueError(f"sets: {each!r}: give each as {{name: NAME, root: DIR}}")
            name = name or str(each.get("name"))
            if name in sets:
                raise ValueError(
                    f"sets: {name!r} is there twice: give them names, as {{a: {{name: {name}, "
                    "root: DIR}, ...}"
                )
            root = Path(str(given.get("root", "."))) / str(each.get("root", "."))
            size = {"size": given["size"]} if given.get("size") is not None else {}
            sets[name] = {**each, "root": str(root), **size}
        return {**given, "root": ".", "sets": sets}


def _named(sets: Any) -> list[tuple[str, Any]]:
    """Each set with its name, which is empty where it is that of the data set."""
    if isinstance(sets, Sets):
        sets = sets.root
    if isinstance(sets, Mapping):
        return [(str(name), each) for name, each in sets.items()]
    if isinstance(sets, list | tuple):
        return [("", each) for each in sets]
    raise ValueError(f"sets: {sets!r}: give a list of data sets")


@register("dataset", "several")
class Several(DataSet):
    """Data sets joined into one, whose domains are NAME, or NAME/DOMAIN of sets with several.

    They are of one task. Classes are matched by their names: first those of the first set in its
    order, then those of the second that the first has not, and so on.
    """

    Config = SeveralConfig
    config: SeveralConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.parts: dict[str, DataSet] = {name: c.build() for name, c in config.sets.root.items()}
        first, *others = self.parts.items()
        self.task = first[1].task  # type: ignore[misc]
        self.input_shape = tuple(first[1].input_shape)
        for name, part in others:
            if part.task != self.task:
                raise BenchError(
                    f"sets: {first[0]} is {self.task}, and {name} is {part.task}: join sets of one "
                    "task"
                )
            if tuple(part.input_shape) != self.input_shape:
                raise BenchError(
                    f"sets: samples of {first[0]} are {self.input_shape}, and of {name} "
                    f"{tuple(part.input_shape)}: set 'size', or the same settings for each"
                )
            one = first[1]
            if (
                isinstance(part, TextData)
                and isinstance(one, TextData)
                and part.encoder.key != one.encoder.key
            ):
                raise BenchError(
                    f"sets: {first[0]} and {name} number words in different ways: give each the "
                    "same 'vocabulary', 'hashes' and 'lowercase'"
                )
        self.families = tuple(  # type: ignore[misc]
            f for f in first[1].families if all(f in part.families for _, part in others)
        )

    @classmethod
    def task_of(cls, config: Any) -> str:
        choice = next(iter(config.sets.root.values()))
        data_class = load("dataset", choice.name)
        task: str = data_class.task_of(data_class.Config.model_validate(choice.config))
        return task

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of all, each once."""
        every = tuple(dict.fromkeys(n for part in self.parts.values() for n in part.class_names))
        if self.task not in BY_NAME:
            for name, part in self.parts.items():
                if tuple(part.class_names) != every:
                    raise BenchError(
                        f"sets: {name} has other classes than the sets together, and labels of "
                        f"{self.task} cannot be numbered anew: give all the same vocabulary"
                    )
        return every

    def domains(self) -> list[str]:
        return list(self._places)

    @cached_property
    def _places(self) -> dict[str, tuple[str, str]]:
        """The set of each domain, and what the set calls it."""
        found: dict[str, tuple[str, str]] = {}
        for name, part in self.parts.items():
            inner = list(part.domains())
            found |= {name if len(inner) == 1 else f"{name}/{d}": (name, d) for d in inner}
        return found

    def splits(self, domain: str) -> Sequence[str]:
        part, inner = self._places[domain]
        return self.parts[part].splits(inner)

    def split(self, domain: str, name: str) -> Split:
        part, inner = self._places[domain]
        split = self.parts[part].split(inner, name)
        numbers = [self.class_names.index(n) for n in self.parts[part].class_names]
        if self.task not in BY_NAME or numbers == list(range(len(self.class_names))):
            return split
        if self.task == "segmentation":
            content = self.config.sets.root[part].content_digest()
            key = digest([content, inner, name, numbers])
            return Split(split.x, _renumbered_masks(split.y, numbers, key))
        return Split(split.x, self._renumbered(split.y, torch.tensor(numbers)))

    def _renumbered(self, y: Tensor, numbers: Tensor) -> Tensor:
        """Labels of a set with its classes' numbers here."""
        if self.task == "detection":
            made = y.clone()
            there = y[..., 0] >= 0
            made[..., 0][there] = numbers[y[..., 0][there].long()].to(y.dtype)
            return made
        if self.task == "classification":
            return numbers[y]
        made = torch.zeros(len(y), len(self.class_names))
        made[:, numbers] = y
        return made

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        """Those that all sets have; none where these are neither all images nor all texts."""
        if not any(
            all(isinstance(each, kind) for each in self.parts.values())
            for kind in (ImageData, TextData)
        ):
            return []
        first, *others = (list(each.corruptions(part, family)) for each in self.parts.values())
        return [name for name in first if all(name in known for known in others)]

    def require_family(self, family: str) -> None:
        for part in self.parts.values():
            part.require_family(family)

    def corrupted(self, split: Split, name: str, key: str) -> Split:
        return next(iter(self.parts.values())).corrupted(split, name, key)

    def described(self, split: Split, position: int) -> str:
        if self.task == "detection":
            found = split.y[position, :, 0]
            names = [self.class_names[int(i)] for i in found[found >= 0].tolist()]
            return ",".join(dict.fromkeys(names))
        return super().described(split, position)

    def files(self) -> Iterator[Path]:
        for part in self.parts.values():
            yield from part.files()

    def digest(self) -> FilesDigest:
        found = [part.digest() for part in self.parts.values()]
        whole = all(each.of == "contents" for each in found)
        value = digest([each.value for each in found])
        return FilesDigest(value, "contents" if whole else "paths and sizes")

    def check(self) -> Iterator[str]:
        """What is wrong with each set, and then with all together."""
        problems = [line for part in self.parts.values() for line in part.check()]
        yield from dict.fromkeys(problems) if problems else super().check()


def _renumbered_masks(y: Tensor, numbers: Sequence[int], key: str) -> Tensor:
    """Masks with other numbers, kept in the cache as the data set's own are."""
    table = torch.full((VOID + 1,), VOID, dtype=torch.uint8)
    table[: len(numbers)] = torch.tensor(numbers, dtype=torch.uint8)
    size = (y.shape[1], y.shape[2])
    return derived_masks(key, len(y), size, lambda: (table[mask.long()] for mask in y))
