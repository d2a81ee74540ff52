"""Low-rank factors in place of attention layers, whose inner neurons can then be pruned.

As in EdgeTA's second generation (BlockTrainer, ``gen_knowledge_base``).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel
from bench.contracts.structure import distinct_blocks

from .linear import linear_at, replace_module


class LowRankLinear(nn.Module):
    """Two linear layers for one: x -> up(down(x)), from its truncated singular values.

    Each factor gets the root of the singular values: with W = U S V^T, ``down`` is
    sqrt(S) V^T of shape (rank, in), without bias, and ``up`` is U sqrt(S), of shape
    (out, rank), with the layer's bias.

    ``rank`` is 1 to min(in, out); None: `break_even_rank`.
    """

    def __init__(self, layer: nn.Linear, rank: int | None = None) -> None:
        super().__init__()
        most = min(layer.in_features, layer.out_features)
        rank = break_even_rank(layer.in_features, layer.out_features) if rank is None else rank
        if not 1 <= rank <= most:
            raise BenchError(f"low rank: rank {rank} is not between 1 and {most}; change it")
        self.down = _empty(layer.in_features, rank, layer.weight)
        self.up = _empty(rank, layer.out_features, layer.weight)
        with torch.no_grad():
            # In double precision, so that full rank gives the layer back to its last bits.
            u, s, vh = torch.linalg.svd(layer.weight.double(), full_matrices=False)
            root = s[:rank].sqrt()
            self.down.weight.copy_(root.unsqueeze(1) * vh[:rank])
            self.up.weight.copy_(u[:, :rank] * root)
        self.up.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (..., out)."""
        return cast(Tensor, self.up(self.down(x)))


def break_even_rank(inputs: int, outputs: int) -> int:
    """The rank at which two factors have as many weights as the layer, in*out / (in + out).

    Rounded down to a multiple of 8; at least 8, at most min(in, out).
    """
    rank = inputs * outputs // (inputs + outputs) // 8 * 8
    return min(max(rank, 8), inputs, outputs)


def factorise(model: FoundationModel, rank: int | None = None) -> None:
    """Replace every block's attention layers (query, key, value, fused or not, and output).

    Raises Unsupported if there are no blocks or a layer is no plain Linear, BenchError if ``rank``
    exceeds its width.
    """
    for block in distinct_blocks(model, "low rank"):
        for name in (*block.qkv, block.out):
            replace_module(model, name, LowRankLinear(linear_at(model, name), rank))


def _empty(inputs: int, outputs: int, like: Tensor) -> nn.Linear:
    kind = {"device": like.device, "dtype": like.dtype}
    return nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False, **kind)
