"""nuScenes-QA-mini: questions about scenes that six cameras and a LiDAR see, by day and night."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType
from bench.contracts.dataset import Part

from ._images import Size
from ._texts import Text, TextConfig, TextData, Texts

CAMERAS = (
    ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT"),
    ("CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT"),
)
"""Their places in the picture that is made of them."""
LIDAR, LIDAR_SHAPE = "LIDAR_TOP", (5, 32, 2048)
COLUMNS = ("token", "question", "answer", LIDAR, *(name for row in CAMERAS for name in row))
SPLITS = {"train": "train", "validation": "test"}
"""Folders of the layout, and what they are: the published results are those of validation."""


class NuscenesQaMiniConfig(TextConfig):
    """How questions become numbers, see `TextConfig`; ``size``: height and width of each camera's
    picture in pixels, or one for both.
    """

    size: Size = (64, 64)
    tokens: int = Field(72, ge=4, le=4096)


@register("dataset", "nuscenes-qa-mini")
class NuscenesQaMini(TextData):
    """Scenes in ROOT/{day,night...}/{train,validation} as Arrow files, with questions and answers.

    Huang, Yang, Gao: arXiv 2312.07886, 2023, made of nuScenes and NuScenes-QA; what
    ``save_to_disk`` of the library datasets writes, read by pyarrow. A domain is a folder, as
    ``night_80dimgaussian7``, whose cameras are dimmed by 80 % and blurred. Inputs are ``image``,
    the six cameras in two rows, ``lidar``, the range image of 5 values, and the question. Labels
    are 1 for the answer, float32 of shape (n, answers).
    """

    Config = NuscenesQaMiniConfig
    config: NuscenesQaMiniConfig
    task = "visual-question-answering"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        height, width = config.size
        self.input_shape = (3, 2 * height, 3 * width)
        if find_spec("pyarrow") is None:
            raise BenchError(
                f"root {self.root}: Arrow files are read by the library pyarrow: "
                "pip install pyarrow"
            )
        inside = sorted(each for each in self.root.iterdir() if each.is_dir())
        self._folders = {
            (folder.name, split): folder / part
            for folder in inside
            for part, split in SPLITS.items()
            if any((folder / part).glob("*.arrow"))
        }
        if not self._folders:
            raise BenchError(
                f"root {self.root} has no Arrow files: this layout is ROOT/day/train/*.arrow, "
                "ROOT/day/validation/*.arrow, ROOT/night.../train/*.arrow"
            )

    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self._folders))

    def splits(self, domain: str) -> list[str]:
        return [split for each, split in self._folders if each == domain]

    def split(self, domain: str, name: str) -> Split:
        folder, table = self._folders[domain, name], self._tables[domain, name]
        asked = [Text.of(question) for question in table["question"].to_pylist()]
        x = _Scenes(table, Texts(asked, self.encoder, self.config.tokens), self.config.size, folder)
        y = torch.zeros(len(table), len(self.class_names))
        for row, answer in enumerate(table["answer"].to_pylist()):
            y[row, self.class_names.index(answer)] = 1
        return Split(x, y)

    def corruptions(self, part: Part, family: str = "") -> list[str]:
        """None: its night is a domain of its own."""
        return []

    def described(self, split: Split, position: int) -> str:
        return self.class_names[int(split.y[position].argmax())]

    def files(self) -> Iterator[Path]:
        return (file for folder in self._folders.values() for file in sorted(folder.iterdir()))

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """All answers that there are, sorted."""
        found = {a for table in self._tables.values() for a in table["answer"].to_pylist()}
        return tuple(sorted(found))

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Any]:
        """The rows of each domain and split, which are read when they are asked for."""
        arrow = importlib.import_module("pyarrow")
        found = {}
        for place, folder in self._folders.items():
            parts = []
            for file in sorted(folder.glob("*.arrow")):
                try:
                    parts.append(arrow.ipc.open_stream(arrow.memory_map(str(file))).read_all())
                except (arrow.ArrowException, OSError) as error:
                    raise BenchError(
                        f"{file}: is no Arrow stream ({error}): fetch it anew"
                    ) from error
                missing = [name for name in COLUMNS if name not in parts[-1].column_names]
                if missing:
                    raise BenchError(f"{file}: has no column {missing[0]!r}: fetch it anew")
            found[place] = arrow.concat_tables(parts)
        return found


class _Scenes(LazyInputs):
    """Cameras, LiDAR and questions of rows of a table."""

    def __init__(self, table: Any, texts: Texts, size: tuple[int, int], folder: Path) -> None:
        super().__init__(torch.arange(len(table)))
        self._table, self._texts, self._size, self._folder = table, texts, size, folder

    def read(self, positions: Tensor) -> Inputs:
        rows = positions.tolist()
        images = torch.stack([self._picture(row) for row in rows])
        lidar = torch.stack([torch.from_numpy(self._numbers(LIDAR, row).copy()) for row in rows])
        if tuple(lidar.shape[1:]) != LIDAR_SHAPE:
            raise BenchError(
                f"{self._folder}: {LIDAR} is of shape {tuple(lidar.shape[1:])}, not {LIDAR_SHAPE}: "
                "fetch it anew"
            )
        return {"image": images, "lidar": lidar.float(), **self._texts.read(positions)}

    def names(self, positions: Tensor) -> list[str]:
        """The scene's token with the question: published splits divide questions, not scenes."""
        tokens, asked = self._table["token"], self._table["question"]
        return [f"{tokens[i].as_py()} {asked[i].as_py()}" for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        height, width = self._size
        image = ((3, 2 * height, 3 * width), torch.float32)
        return {"image": image, "lidar": (LIDAR_SHAPE, torch.float32), **self._texts.sample_types}

    def settings(self) -> Any:
        return [list(self._size), self._texts.subset(self.positions).settings()]

    def _picture(self, row: int) -> Tensor:
        """The six cameras side by side, (3, 2 height, 3 width) in [0, 1]."""
        rows = [torch.cat([self._camera(name, row) for name in names], 2) for names in CAMERAS]
        return torch.cat(rows, dim=1)

    def _camera(self, name: str, row: int) -> Tensor:
        pixels = torch.from_numpy(self._numbers(name, row).astype(np.float32))
        if pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise BenchError(
                f"{self._folder}: row {row}: {name} is of shape {tuple(pixels.shape)}, not "
                "(height, width, 3): fetch it anew"
            )
        return torch.nn.functional.interpolate(
            pixels.permute(2, 0, 1)[None] / 255, size=self._size, mode="bilinear",
            align_corners=False, antialias=True,
        )[0]  # fmt: skip

    def _numbers(self, column: str, row: int) -> np.ndarray[Any, Any]:
        """Lists in lists of numbers as an array; BenchError if their lengths differ."""
        values = self._table[column][row].values
        counts = [1]
        while hasattr(values, "value_lengths"):  # of lists
            counts.append(len(values))
            values = values.flatten()
        counts.append(len(values))
        shape = [inner // max(outer, 1) for outer, inner in pairwise(counts)]
        if math.prod(shape) != len(values):
            raise BenchError(
                f"{self._folder}: row {row}: {column} has lists of different lengths: fetch it anew"
            )
        return values.to_numpy(zero_copy_only=False).reshape(shape)
