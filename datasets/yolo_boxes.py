"""Images with boxes as YOLO writes them: a text file for each image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from bench import BenchError, register
from bench.io.folder_files import files_below
from bench.io.safe_yaml import read_yaml

from ._boxes import Boxed, BoxedImages, BoxesConfig, box
from ._images import IMAGES, image_folders, is_image
from ._tables import read_text

BOXES = ("labels", "boxes")
NAMES = ("names.yaml", "data.yaml", "classes.txt")


@register("dataset", "yolo-boxes")
class YoloBoxes(BoxedImages):
    """Images in ROOT/DOMAIN/images with boxes in ROOT/DOMAIN/labels/*.txt, or both in ROOT.

    The folder of the boxes may be called boxes. A line is ``class cx cy w h``, relative to the
    image; an image without a file has none. ROOT/names.yaml (or data.yaml) has ``names``, or
    classes.txt one name a line.
    """

    Config = BoxesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._folders = image_folders(
            self.root, f"ROOT/DOMAIN/{IMAGES}/NAME.jpg and ROOT/DOMAIN/{BOXES[0]}/NAME.txt"
        )

    def domains(self) -> list[str]:
        return list(self._folders)

    def boxed(self, domain: str) -> list[Boxed]:
        return self._samples[domain]

    def files(self) -> Iterator[Path]:
        kinds = (".txt", ".yaml")
        return (f for f in files_below(self.root) if is_image(f.name) or f.suffix in kinds)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Of ``names`` in names.yaml or data.yaml, or the lines of classes.txt."""
        file = next((self.root / n for n in NAMES if (self.root / n).is_file()), None)
        if file is None:
            raise BenchError(f"{self.root / NAMES[0]}: is not there: give it the names of classes")
        if file.suffix == ".txt":
            return tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
        content = read_yaml(file, "names")
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict) and sorted(names) == list(range(len(names))):
            names = [names[i] for i in range(len(names))]
        if not isinstance(names, list) or not names:
            raise BenchError(
                f"{file}: has no 'names' that are a list, or numbered from 0: list the classes"
            )
        return tuple(map(str, names))

    @cached_property
    def _samples(self) -> dict[str, list[Boxed]]:
        found = {}
        for domain, folder in self._folders.items():
            place = next((folder / b for b in BOXES if (folder / b).is_dir()), None)
            if place is None:
                raise BenchError(f"{folder / BOXES[0]}: is not there: put the boxes' files there")
            images = [file for file in files_below(folder / IMAGES) if is_image(file.name)]
            if not images:
                raise BenchError(f"{folder / IMAGES}: domain {domain!r} has no images: add some")
            files = {file.stem: file for file in files_below(place) if file.suffix == ".txt"}
            if not files:
                raise BenchError(f"{place}: has no .txt files: one for each image has its boxes")
            found[domain] = [Boxed(image, self._boxes(files.get(image.stem))) for image in images]
        return found

    def _boxes(self, file: Path | None) -> list[Any]:
        if file is None:
            return []
        found = []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            place = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                name, x, y, width, height = map(float, line.split())
            except ValueError as error:
                raise BenchError(
                    f"{place}: {line[:60]!r}: a line is 'class cx cy w h' in numbers: correct it"
                ) from error
            corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            found.append(box(int(name), corners, len(self.class_names), place))
        return found
