"""Real handwritten digits, split once for every stream that is made of them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Domain, Split, Stream, StreamConfig
from bench.errors import did_you_mean
from bench.io.digest import file_digest

from .corruptions import SEVERITIES, VALIDATION_SEVERITIES, apply_shift

Part = Literal["test", "validation"]

CLASSES = 10
ALL_CLASSES = tuple(range(CLASSES))
SHIFTS = {"test": tuple(SEVERITIES), "validation": tuple(VALIDATION_SEVERITIES)}
"""The shifts that a stream of each part may contain: none is in both."""

SOURCE_SAMPLES = {"test": 1000, "validation": 600}
TEST_SAMPLES = {"test": 300, "validation": 150}


class DigitsConfig(StreamConfig):
    """``part``: the stream that is reported, or the one to tune on; ``size``: pixels a side."""

    part: Part = "test"
    size: int = Field(32, ge=16, le=224)


@dataclass(frozen=True)
class Step:
    """One domain of a stream: the images of some classes, shifted or (no ``shift``) as they are."""

    name: str
    classes: tuple[int, ...]
    shift: str | None = None
    severity: int = 1


class DigitsStream(Stream):
    """The 1,797 images of the UCI "Optical Recognition of Handwritten Digits" test set.

    Alpaydin & Kaynak, 1998: 8x8 pixels, as scikit-learn ships them, upsampled bilinearly. Every
    split is stratified by class. The source's images are fixed, so that one source model serves
    all seeds; the others are split by the seed, the same way in every domain: an image that any
    domain adapts on is tested in none.

    ========== ====== ========== ==== =================================
    part       source adaptation test made of
    ========== ====== ========== ==== =================================
    test        1,000        497  300 all images
    validation    600        250  150 the 1,000 of the test part's source
    ========== ====== ========== ==== =================================

    A domain of some classes has its share of these. The random parts of a shift are drawn from
    (seed, domain, split).

    source_classes : the classes that the source model is trained and tested on
    steps : the target domains in the order of the stream
    """

    classes = CLASSES

    def __init__(
        self, config: Any, seed: int, source_classes: tuple[int, ...], steps: Iterable[Step]
    ) -> None:
        super().__init__(config, seed)
        self.input_shape = (1, config.size, config.size)
        self._source_classes = source_classes
        self._steps = list(steps)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        spec = find_spec("sklearn")
        assert spec is not None
        assert spec.origin is not None
        return file_digest(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz")

    def source(self) -> Domain:
        training, test = (self._split(s, self._source_classes) for s in ("source", "test"))
        return Domain("source", training, test)

    def source_settings(self) -> dict[str, Any]:
        part, size = self.config.part, self.config.size
        return {"part": part, "size": size, "source_classes": list(self._source_classes)}

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation"})

    def domain_names(self) -> list[str]:
        return [step.name for step in self._steps]

    def position(self, name: str) -> int:
        """The place of a domain in the stream; BenchError if there is none of that name."""
        if name not in (names := self.domain_names()):
            raise BenchError(
                f"{type(self).__name__} has no domain {name!r}; {did_you_mean(name, names)}"
            )
        return names.index(name)

    def domain(self, name: str) -> Domain:
        step = self._steps[self.position(name)]
        return Domain(name, self._shifted(step, "adaptation"), self._shifted(step, "test"))

    def _shifted(self, step: Step, split: str) -> Split:
        clean = self._split(split, step.classes)
        if step.shift is None:
            return clean
        generator = torch.Generator()
        generator.manual_seed(zlib.crc32(f"{self.seed}/{step.name}/{split}".encode()))
        return Split(apply_shift(step.shift, clean.x, step.severity, generator), clean.y)

    def _split(self, split: str, classes: tuple[int, ...]) -> Split:
        """The images of ``classes`` in "source", "adaptation" or "test", in a fixed order."""
        images, labels, indices = self._clean
        chosen = indices[split]
        chosen = chosen[torch.isin(labels[chosen], torch.tensor(classes))]
        return Split(images[chosen], labels[chosen])

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """All images, their labels, and which of them are in each split of this part."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        small = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
        size = self.config.size
        images = torch.nn.functional.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
        labels = digits.target

        def fixed(of: np.ndarray, n: int) -> list[np.ndarray]:
            return train_test_split(of, train_size=n, stratify=labels[of], random_state=0)

        part = self.config.part
        source, rest = fixed(np.arange(len(labels)), SOURCE_SAMPLES["test"])
        if part == "validation":
            source, rest = fixed(source, SOURCE_SAMPLES[part])
        adaptation, test = train_test_split(
            rest, test_size=TEST_SAMPLES[part], stratify=labels[rest], random_state=self.seed
        )
        splits = {"source": source, "adaptation": adaptation, "test": test}
        indices = {k: torch.from_numpy(np.sort(v)) for k, v in splits.items()}
        return images, torch.from_numpy(labels).long(), indices
