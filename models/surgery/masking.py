"""Whether a cut model computes what it should: as the uncut one with the rest at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bench import FoundationModel
from bench.contracts.data import Inputs
from bench.contracts.structure import WrongBlocks, distinct_blocks, require_called

from .linear import linear_at
from .pruning import Kept, cut

TOLERANCE = 1e-3
"""Largest difference of outputs, as a share of the largest output."""


@torch.no_grad()
def require_prunable(
    model: FoundationModel, x: Inputs, choose: Callable[..., list[Kept]], ratio: int
) -> None:
    """Raise Unsupported unless pruning does to ``model`` what its declared blocks say.

    A copy that is cut to what ``choose`` (`pruning.strongest` or `strongest_heads`) keeps must give
    the outputs, on samples ``x``, of a copy in which all else is zero. It does not where query, key
    and value of a fused layer lie in another order, scores are scaled otherwise than declared, or
    further weights have the old width.
    """
    require_called(model, x, "pruning")
    model, x = _single(model), tree_map(_at_least_single, x)
    kept = choose(model, ratio)
    small = model.clone()
    cut(small, kept)
    for block, chosen in zip(distinct_blocks(model, "pruning"), kept, strict=True):
        layers = [linear_at(model, name) for name in (*block.qkv, block.ff_in)]
        for layer, rows in zip(layers, (*chosen.qkv, chosen.ff_in), strict=True):
            _zero_but(layer, rows)
        for name, columns in ((block.out, chosen.out), (block.ff_out, chosen.ff_out)):
            _zero_columns_but(linear_at(model, name), columns)
    wanted = model(x)
    who = f"pruning: {type(model).__name__}"
    try:
        found = small(x)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise WrongBlocks(
            f"{who} does not run with narrower blocks ({type(error).__name__}: {error}); check "
            "blocks() and resize_attention()"
        ) from error
    away = float((found - wanted).abs().max())
    if not away <= TOLERANCE * float(wanted.abs().max()):
        raise WrongBlocks(
            f"{who} with narrower blocks differs by up to {away:.2g} from itself with the rest at "
            "zero; check the order of qkv, heads and scaled in blocks(), and resize_attention()"
        )


def _single(model: FoundationModel) -> FoundationModel:
    """A copy in at least single precision and in evaluation mode."""
    twin = model.clone()
    if any(p.dtype in (torch.bfloat16, torch.float16) for p in twin.module.parameters()):
        twin.module.float()
    twin.train(False)
    return twin


def _at_least_single(x: Any) -> Any:
    half = isinstance(x, Tensor) and x.dtype in (torch.bfloat16, torch.float16)
    return x.float() if half else x


def _zero_but(layer: nn.Linear, rows: Tensor) -> None:
    rest = torch.ones(layer.out_features, dtype=torch.bool, device=rows.device)
    rest[rows] = False
    layer.weight[rest] = 0
    if layer.bias is not None:
        layer.bias[rest] = 0


def _zero_columns_but(layer: nn.Linear, columns: Tensor) -> None:
    rest = torch.ones(layer.in_features, dtype=torch.bool, device=columns.device)
    rest[columns] = False
    layer.weight[:, rest] = 0
