"""A stream of small domains whose samples say where they are from."""

from __future__ import annotations

import zlib
from typing import Any, ClassVar

import pydantic
import torch
from torch import Tensor

from bench.contracts.stream import Domain, Split, Stream, StreamConfig
from bench.io.digest import digest


class TinyStreamConfig(StreamConfig):
    """Settings of `TinyStream`: its target domains, and the samples in each of their splits."""

    domains: int = pydantic.Field(2, ge=1, le=3)
    samples: int = pydantic.Field(10, ge=1, le=100)
    tests: int = pydantic.Field(4, ge=1)


class TinyStream(Stream):
    """Inputs of shape (2,): the place of the domain in the stream, and the number of the sample.

    The source is at place 0, the targets follow from 1. Numbers count from 0 in adaptation splits
    and from ``TEST_MARK`` in test splits, so that a method can record what it is given. Target
    samples come in an order drawn by the seed. There is nothing to learn: labels alternate, and
    subclasses may change `labels` and `tests`.
    """

    NAMES: ClassVar[tuple[str, ...]] = ("first", "second", "third")
    TEST_MARK: ClassVar[float] = 100.0

    Config = TinyStreamConfig
    classes = 2
    input_shape = (2,)

    def __init__(self, config: TinyStreamConfig | None = None, seed: int = 0) -> None:
        super().__init__(config or self.Config(), seed)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return digest(["tiny", config.samples, config.tests])

    def labels(self, place: int, number: Tensor) -> Tensor:
        """Labels of samples, int64 of shape (n,): ``number`` modulo 2, from 0 in both splits."""
        return number.long() % 2

    def tests(self, place: int) -> int:
        """The number of test samples of the domain at ``place``."""
        tests: int = self.config.tests
        return tests

    def source(self) -> Domain:
        return self._domain("source", 0)

    def domain_names(self) -> tuple[str, ...]:
        return self.NAMES[: self.config.domains]

    def domain(self, name: str) -> Domain:
        return self._domain(name, self.domain_names().index(name) + 1)

    def _domain(self, name: str, place: int) -> Domain:
        adaptation = self._split(name, place, self.config.samples, 0.0)
        return Domain(name, adaptation, self._split(name, place, self.tests(place), self.TEST_MARK))

    def _split(self, name: str, place: int, n: int, first: float) -> Split:
        seed = self.seed if place else 0  # a source is the same for every seed
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}/{first}".encode()))
        number = torch.randperm(n, generator=generator).float()
        x = torch.stack([torch.full((n,), float(place)), number + first], dim=1)
        return Split(x, self.labels(place, number))
