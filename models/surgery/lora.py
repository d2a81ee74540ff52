"""LoRA surgery: low-rank adapters on the attention's query, key and value, from names alone."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel, Unsupported
from bench.contracts.structure import distinct_blocks, plain_linear

from .linear import replace_module


class LoraLinear(nn.Module):
    """A frozen linear layer plus trainable low-rank terms: x -> W x + b + scale [B_i A_i x]_i.

    One pair (A, B) for each of ``parts`` equal groups of output rows, so that a fused
    qkv layer gets a pair each for query, key and value (Hu et al., ICLR 2022). A is drawn
    Kaiming-uniform and B is zero: insertion changes no output.

    base : of shape (out, in); rank : r; scale : alpha / r; parts : must divide ``out``
    """

    def __init__(self, base: nn.Linear, rank: int, scale: float, parts: int) -> None:
        super().__init__()
        rows, remainder = divmod(base.out_features, parts)
        if remainder:
            raise Unsupported(
                f"LoRA: {base.out_features} rows do not divide into {parts} parts; check blocks()"
            )
        self.base = base
        self.scale = scale
        like = base.weight.detach()
        self.down = nn.ParameterList(
            nn.Parameter(like.new_empty(rank, base.in_features)) for _ in range(parts)
        )
        self.up = nn.ParameterList(nn.Parameter(like.new_zeros(rows, rank)) for _ in range(parts))
        for matrix in self.down:
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (..., out)."""
        terms = [x @ a.t() @ b.t() for a, b in zip(self.down, self.up, strict=True)]
        return cast(Tensor, self.base(x)) + self.scale * torch.cat(terms, dim=-1)

    @torch.no_grad()
    def fused(self) -> nn.Linear:
        """The base layer with the low-rank terms added to its weights."""
        products = [b @ a for a, b in zip(self.down, self.up, strict=True)]
        self.base.weight += self.scale * torch.cat(products)
        return self.base


def insert_lora(model: FoundationModel, rank: int, alpha: float) -> list[nn.Parameter]:
    """Put adapters on every block's query, key and value; return their parameters.

    Layers that several blocks share get one adapter. Raises Unsupported if the model declares no
    blocks or a layer cannot be adapted, BenchError if ``rank`` exceeds a layer's width.
    """
    parameters: list[nn.Parameter] = []
    for block in distinct_blocks(model, "LoRA"):
        for name in block.qkv:
            base = plain_linear(model.module.get_submodule(name), name)
            if rank > min(base.in_features, base.out_features):
                raise BenchError(f"LoRA: rank {rank} exceeds the width of {name}; lower it")
            adapted = LoraLinear(base, rank, alpha / rank, 3 if block.fused else 1)
            replace_module(model, name, adapted)
            parameters += [*adapted.down, *adapted.up]
    return parameters


def fuse_lora(model: FoundationModel) -> None:
    """Add every adapter to its layer's weights and restore the plain layers."""
    adapted = [(n, m) for n, m in model.module.named_modules() if isinstance(m, LoraLinear)]
    for name, layer in adapted:
        replace_module(model, name, layer.fused())
