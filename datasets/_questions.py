"""Questions about images as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import LazyInputs
from bench.contracts.data import Inputs, SampleType

from ._images import ImageFiles
from ._texts import Encoder, Text, Texts

AGREED = 3
"""Equal answers of people that make an answer fully right: Antol et al., VQA, ICCV 2015."""


class Questions(LazyInputs):
    """Images and questions as ``image``, ``input_ids`` and ``attention_mask``."""

    def __init__(self, images: ImageFiles, places: Tensor, texts: Texts) -> None:
        super().__init__(torch.arange(len(places)))
        self._images, self._places, self._texts = images, places, texts

    @classmethod
    def of(
        cls,
        asked: Sequence[str],
        files: Sequence[Path],
        size: tuple[int, int],
        encoder: Encoder,
        tokens: int,
    ) -> Questions:
        """Each question with the file of its image."""
        number = {file: i for i, file in enumerate(dict.fromkeys(files))}
        places = torch.tensor([number[file] for file in files], dtype=torch.int64)
        texts = Texts([Text.of(question) for question in asked], encoder, tokens)
        return cls(ImageFiles(list(number), size), places, texts)

    def read(self, positions: Tensor) -> Inputs:
        images = self._images.read(self._places[positions])
        return {"image": images, **self._texts.read(positions)}

    def names(self, positions: Tensor) -> list[str]:
        images = self._images.names(self._places[positions])
        texts = self._texts.names(positions)
        return [f"{image} {text}" for image, text in zip(images, texts, strict=True)]

    def question(self, position: int) -> str:
        """The text of one of these samples' questions."""
        return " ".join(self._texts.texts[int(self.positions[position])].words)

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"image": self._images.sample_types[""], **self._texts.sample_types}

    def settings(self) -> Any:
        return self._texts.subset(self.positions).settings()
