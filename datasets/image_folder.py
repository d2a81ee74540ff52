"""Folders of images: one folder a domain, in it one folder a class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench import BenchError, DataSetConfig, Split, register

from ._images import IMAGES, ImageData, ImageFiles, Size, is_image

ONE = "all"
"""The domain of a root whose folders are the classes."""

NO_CLASSES = {
    (IMAGES, "labels"): "segmentation-pairs, yolo-boxes and gta5 read",
    ("ann", "img"): "supervisely-person reads",
    (IMAGES, "profiles"): "baidu-person reads",
}
"""Folders of images and of their masks or boxes, and what reads them."""

SPLIT = re.compile(r"(train|val|test)(\d{4})?")


class ImageFolderConfig(DataSetConfig):
    """``root``: folder of the domains; ``size``: height and width in pixels, or one for both."""

    size: Size = (64, 64)


@register("dataset", "image-folder")
class ImageFolder(ImageData):
    """Images in folders ROOT/DOMAIN/CLASS/*.jpg (or .png, ...), or ROOT/CLASS/*.jpg.

    Every domain has the same classes, numbered in the order of their names. Images are resized to
    ``size``, whatever their shape. With ROOT/CLASS there is one domain, ``all``.
    """

    Config = ImageFolderConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)
        self._folders = self._find_domains()
        self.class_names = self._common_classes()
        self._found: dict[str, list[list[Path]]] = {}

    def domains(self) -> list[str]:
        return list(self._folders)

    def split(self, domain: str, name: str) -> Split:
        files = self._files(domain)
        y = torch.cat([torch.full((len(of_class),), i) for i, of_class in enumerate(files)])
        return Split(ImageFiles([file for each in files for file in each], self.config.size), y)

    def _find_domains(self) -> dict[str, Path]:
        """The folder of each domain."""
        folders = class_folders(self.root)
        if not folders:
            raise BenchError(
                f"root {self.root} has no folders: this layout is ROOT/DOMAIN/CLASS/*.jpg"
            )
        inner = {folder: class_folders(folder) for folder in folders}
        if not any(inner.values()):
            return {ONE: self.root}
        for folder, classes in inner.items():
            if not classes:
                raise BenchError(
                    f"{folder}: has no class folders, and {_first(inner)} has: this layout is "
                    "ROOT/DOMAIN/CLASS/*.jpg; add them or move it away"
                )
        return {folder.name: folder for folder in folders}

    def _common_classes(self) -> tuple[str, ...]:
        names = {d: {f.name for f in class_folders(folder)} for d, folder in self._folders.items()}
        every = sorted(set().union(*names.values()))
        for domain, found in names.items():
            if missing := [name for name in every if name not in found]:
                has = next(d for d, found in names.items() if missing[0] in found)
                raise BenchError(
                    f"{self._folders[domain] / missing[0]}: is not there, and domain {has!r} has "
                    f"this class: every domain has the same classes; add the folder or remove the "
                    f"class from all"
                )
        if len(every) == 2 and tuple(every) in NO_CLASSES:
            raise BenchError(
                f"root {self.root} has the folders {every[0]} and {every[1]}, which are no "
                f"classes: {NO_CLASSES[every[0], every[1]]} this layout"
            )
        if all(SPLIT.fullmatch(name) for name in every):
            raise BenchError(
                f"root {self.root} has the folders {', '.join(every)}, which are splits and no "
                "classes: see 'bench data list' for what reads this layout"
            )
        if len(every) < 2:
            raise BenchError(
                f"root {self.root} has the class {every[0]!r} alone: this layout is "
                "ROOT/DOMAIN/CLASS/*.jpg, and there are two classes or more"
            )
        return tuple(every)

    def _files(self, domain: str) -> list[list[Path]]:
        """The image files of each class of a domain."""
        folder = self._folders[domain]
        if domain not in self._found:
            found = [_images(folder / name) for name in self.class_names]
            if not any(found):
                deeper = next(
                    (f for n in self.class_names for f in class_folders(folder / n)), None
                )
                cure = f"name {folder} as the root" if deeper else "add some, or remove the folder"
                raise BenchError(f"{folder}: domain {domain!r} has no images: {cure}")
            self._found[domain] = found
        return self._found[domain]

    def _problems(self) -> Iterator[str]:
        """What is wrong; if nothing is, classes that have no images at all."""
        found = list(super()._problems())
        yield from found
        for number, name in enumerate(() if found else self.class_names):
            if not any(of_class[number] for of_class in self._found.values()):
                folder = next(iter(self._folders.values())) / name
                yield (
                    f"{folder}: has no images, and no domain has one of this class: add some, or "
                    "remove the folder"
                )

    def files(self) -> Any:
        return (file for d in self._folders for of_class in self._files(d) for file in of_class)


def class_folders(folder: Path) -> list[Path]:
    """The folders in a folder, without hidden ones, in the order of their names."""
    return sorted(
        each for each in folder.iterdir() if each.is_dir() and not each.name.startswith((".", "__"))
    )


def _images(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if is_image(each.name))


def _first(inner: dict[Path, list[Path]]) -> Path:
    return next(folder for folder, classes in inner.items() if classes)
