"""A model small enough to check its updates by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pydantic
import torch
from torch import Tensor, nn

from bench.contracts.model import Block, FoundationModel, ModelConfig


class TinyModelConfig(ModelConfig):
    """Settings of `TinyModel`: ``width`` of its hidden layer."""

    width: int = pydantic.Field(8, ge=1)


class TinyNet(nn.Module):
    """head(tanh(norm(body(x)))): two linear layers and a LayerNorm, for x of shape (n, ...)."""

    def __init__(self, inputs: int, width: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(inputs, width)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, classes)."""
        logits: Tensor = self.head(torch.tanh(self.norm(self.body(x.flatten(1)))))
        return logits


class TinyModel(FoundationModel):
    """`TinyNet`, or any module that one wraps: ``TinyModel(module, head_name="2")``.

    Parameters
    ----------
    module : a network from inputs to logits
    head_name : the name of its head inside ``module``; "" if the module is all head
    blocks : its transformer blocks, if it has any
    """

    Config = TinyModelConfig

    def __init__(
        self, module: nn.Module, head_name: str = "head", blocks: Sequence[Block] = ()
    ) -> None:
        super().__init__(module)
        self.head_name = head_name
        self._blocks = list(blocks)

    @classmethod
    def build(
        cls, config: Any = None, input_shape: tuple[int, ...] = (2,), classes: int = 2
    ) -> TinyModel:
        """A fresh `TinyNet` of ``config`` (by default 8 wide)."""
        width = (config or TinyModelConfig()).width
        return cls(TinyNet(math.prod(input_shape), width, classes))

    def blocks(self) -> list[Block]:
        return self._blocks
