"""Images with boxes as COCO writes them: one JSON file for many images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import BenchError, register
from bench.errors import shown
from bench.io.folder_files import files_below

from ._boxes import Boxed, BoxedImages, BoxesConfig, box
from ._images import is_image
from ._tables import read_json


@register("dataset", "coco-boxes")
class CocoBoxes(BoxedImages):
    """Images with the boxes of ROOT/DOMAIN.json in COCO's format; each JSON file is a domain.

    An image is found by its ``file_name``: the path from the root, or from the JSON file, else its
    end, else its bare name, anywhere in the root where that is one file. Boxes of crowds
    (``iscrowd``) are left out. Classes are those of ``categories``, in the order of their ids, and
    the same in every file.
    """

    Config = BoxesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        files = [f for f in files_below(self.root) if f.suffix == ".json"]
        if not files:
            raise BenchError(f"root {self.root} has no .json file: this layout is ROOT/DOMAIN.json")
        self._files: dict[str, Path] = {}
        for file in files:
            if (other := self._files.setdefault(file.stem, file)) != file:
                raise BenchError(
                    f"{file}: domain {file.stem!r} is also {other}: give each its own name"
                )

    def domains(self) -> list[str]:
        return list(self._files)

    def boxed(self, domain: str) -> list[Boxed]:
        return self._samples[domain]

    def files(self) -> Iterator[Path]:
        used = {s.image for samples in self._samples.values() for s in samples}
        return iter([*self._files.values(), *used])

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the categories."""
        return tuple(self._categories.values())

    @cached_property
    def _content(self) -> dict[str, dict[str, Any]]:
        found = {}
        for domain, file in self._files.items():
            content = read_json(file)
            parts = ("images", "annotations", "categories")
            if not isinstance(content, dict) or not all(
                isinstance(content.get(part), list) and content[part] for part in parts
            ):
                raise BenchError(
                    f"{file}: has not the lists {', '.join(parts)} of COCO's format: correct it, "
                    "or move it out of the root"
                )
            found[domain] = content
        return found

    @cached_property
    def _categories(self) -> dict[int, str]:
        """Names by id, the same in every file."""
        first: tuple[str, dict[int, str]] | None = None
        for domain, content in self._content.items():
            try:
                found = {int(c["id"]): str(c["name"]) for c in content["categories"]}
            except (KeyError, TypeError, ValueError) as error:
                raise BenchError(
                    f"{self._files[domain]}: a category has no id or name: {error}"
                ) from error
            if first is not None and found != first[1]:
                raise BenchError(
                    f"{self._files[domain]}: has other categories than {self._files[first[0]]}: "
                    "every domain has the same classes"
                )
            first = first or (domain, found)
        assert first is not None
        return dict(sorted(first[1].items()))

    @cached_property
    def _samples(self) -> dict[str, list[Boxed]]:
        images: dict[str, dict[Path, None]] = defaultdict(dict)
        for each in files_below(self.root):
            if is_image(each.name):
                images[each.name][each] = None
        number = {identifier: i for i, identifier in enumerate(self._categories)}
        found = {}
        for domain, content in self._content.items():
            file = self._files[domain]
            samples: dict[Any, tuple[Boxed, float, float]] = {}
            for i, image in enumerate(content["images"]):
                try:
                    name, size = image["file_name"], (float(image["width"]), float(image["height"]))
                    named, identifier = images[Path(name).name], image["id"]
                except (KeyError, TypeError, ValueError) as error:
                    raise BenchError(f"{file}: image {i} is {shown(image)}: {error}") from error
                samples[identifier] = (Boxed(self._found(name, named, file)), *size)
            for i, made in enumerate(content["annotations"]):
                self._add(made, f"{file}: annotation {i}", samples, number)
            found[domain] = [sample for sample, _, _ in samples.values()]
        return found

    def _found(self, name: str, named: dict[Path, None], file: Path) -> Path:
        """The image that a file means by ``name``, among those of its last part."""
        folders = (Path(), file.parent.relative_to(self.root))
        places = [self.root / os.path.normpath(folder / name) for folder in folders]
        ending = Path(name).parts
        found = (
            [each for each in dict.fromkeys(places) if each in named]
            or [each for each in named if each.parts[-len(ending) :] == ending]
            or list(named)
        )
        if not found:
            raise BenchError(f"{file}: image {name!r} is not in {self.root}: add it")
        if len(found) > 1:
            raise BenchError(
                f"{file}: image {name!r} is {found[0]} or {found[1]}: give file_name its path from "
                f"{self.root}"
            )
        return found[0]

    def _add(
        self, made: Any, place: str, samples: dict[Any, tuple[Boxed, float, float]],
        number: dict[int, int],
    ) -> None:  # fmt: skip
        try:
            x, y, width, height = map(float, made["bbox"])
            sample, across, down = samples[made["image_id"]]
            category = number[made["category_id"]]
        except (KeyError, TypeError, ValueError) as error:
            raise BenchError(
                f"{place} is {shown(made)}: it needs bbox [x, y, width, height], and image_id and "
                "category_id that are there"
            ) from error
        if not made.get("iscrowd"):
            corners = (x / across, y / down, (x + width) / across, (y + height) / down)
            sample.boxes.append(box(category, corners, len(number), place))
