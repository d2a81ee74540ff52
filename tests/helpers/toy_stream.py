"""A stream of two small domains whose samples say where they are from, and a model for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.contracts.model import Block, FoundationModel
from bench.contracts.stream import Domain, Split, Stream

NAMES = ("first", "second")
SAMPLES, TESTS = 10, 4
TEST_MARK, SOURCE = 100.0, -1.0


class Toy(FoundationModel):
    """One linear layer from two inputs to two classes."""

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> Toy:
        torch.manual_seed(0)
        return cls(nn.Sequential(nn.Linear(2, 2)))

    head_name = "0"

    def blocks(self) -> list[Block]:
        return []


class ToyStream(Stream):
    """Inputs (domain, k): k from 0 in adaptation, from 100 in test; of label k modulo 2."""

    classes = 2
    input_shape = (2,)

    @classmethod
    def data_digest(cls, config: Any) -> str:
        return "toy"

    def _make(self, number: float, name: str) -> Domain:
        def split(n: int, first: float) -> Split:
            k = torch.arange(n, dtype=torch.float32)
            return Split(torch.stack([torch.full((n,), number), k + first], 1), (k % 2).long())

        return Domain(name, split(SAMPLES, 0), split(TESTS, TEST_MARK))

    def source(self) -> Domain:
        return self._make(SOURCE, "source")

    def domain_names(self) -> tuple[str, ...]:
        return NAMES

    def domain(self, name: str) -> Domain:
        return self._make(float(NAMES.index(name)), name)
