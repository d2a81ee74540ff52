"""Handwritten digits under a stream of distinct shifts: the scenario that needs no download."""

from __future__ import annotations

import zlib
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from bench import register
from bench.datasets.shifts import SEVERITIES, apply_shift
from bench.digest import file_digest
from bench.errors import BenchError, did_you_mean
from bench.scenario import Domain, Scenario, ScenarioConfig, Split

SOURCE_SAMPLES = 1000
TEST_SAMPLES = 300


class DigitsShiftConfig(ScenarioConfig):
    """``shifts``: which, in this order; ``severities``: one pass over the shifts for each.

    ``order``: ``listed`` as above, or ``shuffled`` by the seed. ``size``: pixels a side.
    """

    shifts: tuple[str, ...] = Field(tuple(SEVERITIES), min_length=1)
    severities: tuple[Literal[1, 2], ...] = Field((1, 2), min_length=1)
    order: Literal["listed", "shuffled"] = "listed"
    size: int = Field(32, ge=16, le=224)

    @field_validator("shifts", "severities")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a thing twice; domains must be distinct")
        return value

    @field_validator("shifts")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SEVERITIES:
                raise ValueError(f"unknown shift {name!r}; {did_you_mean(name, SEVERITIES)}")
        return value


@register("scenario", "digits-shift")
class DigitsShift(Scenario):
    """Real 8x8 digits of scikit-learn, 12 shifts at 2 severities: 24 target domains.

    Source: 1,000 of the 1,797 images of the UCI "Optical Recognition of Handwritten Digits" test
    set (Alpaydin & Kaynak, 1998), upsampled bilinearly; fixed, so that one source model serves all
    seeds. The other 797 images are split by the seed, stratified by class, into 497 for adaptation
    and 300 for testing, the same split in every domain: an image that any domain adapts on is
    tested in none. The random parts of a shift are drawn from (seed, domain, split).
    """

    Config = DigitsShiftConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")
    classes = 10

    def __init__(self, config: DigitsShiftConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.input_shape = (1, config.size, config.size)
        self._names = [f"{s}-{v}" for v in config.severities for s in config.shifts]
        if config.order == "shuffled":
            self._names = [self._names[i] for i in np.random.default_rng(seed).permutation(
                len(self._names))]  # fmt: skip

    @classmethod
    def data_digest(cls, config: Any) -> str:
        spec = find_spec("sklearn")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        return file_digest(folder / "datasets" / "data" / "digits.csv.gz")

    def source(self) -> Domain:
        images, labels, indices = self._clean
        source = indices["source"]
        test = indices["test"]
        return Domain(
            "source", Split(images[source], labels[source]), Split(images[test], labels[test])
        )

    def source_settings(self) -> dict[str, Any]:
        return {"size": self.config.size}

    def domain_names(self) -> list[str]:
        return list(self._names)

    def domain(self, name: str) -> Domain:
        shift, _, severity = name.rpartition("-")
        if name not in self._names:
            raise BenchError(f"scenario digits-shift has no domain {name!r}")
        images, labels, indices = self._clean

        def shifted(split: str) -> Split:
            generator = torch.Generator()
            generator.manual_seed(zlib.crc32(f"{self.seed}/{name}/{split}".encode()))
            chosen = indices[split]
            x = apply_shift(shift, images[chosen], int(severity), generator)
            return Split(x, labels[chosen])

        return Domain(name, shifted("adaptation"), shifted("test"))

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        small = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
        size = self.config.size
        images = torch.nn.functional.interpolate(
            small, size=(size, size), mode="bilinear", align_corners=False
        )
        labels = digits.target
        source, rest = train_test_split(
            np.arange(len(labels)), train_size=SOURCE_SAMPLES, stratify=labels, random_state=0
        )
        adaptation, test = train_test_split(
            rest, test_size=TEST_SAMPLES, stratify=labels[rest], random_state=self.seed
        )
        parts = {"source": source, "adaptation": adaptation, "test": test}
        indices = {k: torch.from_numpy(np.sort(v)) for k, v in parts.items()}
        return images, torch.from_numpy(labels).long(), indices
