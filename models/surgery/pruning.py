"""Static width pruning: each block's inner widths are cut to the rows and columns of largest norm.

Embedding width, depth and head stay. ``matched=True`` selects what belongs together. The released
EdgeTA (MPOptimizer, ``Big_model``) selects as ``matched=False`` does: what remains of a layer no
longer meets its counterpart in the next, and parts of a fused query-key-value layer mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bench import BenchError, Block, FoundationModel
from bench.contracts.structure import distinct_blocks, geometry

from .linear import cut_linear, largest, linear_at


@dataclass(frozen=True, eq=False)
class Kept:
    """What remains of one block: int64 ids in the layers of the uncut block.

    ``qkv`` holds the rows of each layer in ``block.qkv`` (of a fused layer: ids among its 3 d
    rows, those of query, then key, then value), ``out`` the columns of the attention's
    output layer, ``ff_in`` rows and ``ff_out`` columns; ``heads`` is the new number of heads.
    """

    qkv: tuple[Tensor, ...]
    out: Tensor
    ff_in: Tensor
    ff_out: Tensor
    heads: int


def strongest(model: FoundationModel, ratio: int, matched: bool = True) -> list[Kept]:
    """What has the largest L1 norm when every inner width is divided by ``ratio``.

    The number of heads stays, each gets narrower. Biases do not count in the norms.

    matched : select jointly what is multiplied with each other (norms added): a head's query and
        key rows, value rows and output columns, feed-forward rows and columns. False: each layer
        by itself, over all heads, a fused one over query, key and value together.

    Blocks that share their weights count as one. Raises Unsupported if there are no blocks or they
    are not what the network is; BenchError if ``ratio`` < 1 or a width is not divisible by it.
    """
    return [_kept(model, block, ratio, matched) for block in _checked_blocks(model, ratio)]


def strongest_heads(model: FoundationModel, ratio: int, matched: bool = True) -> list[Kept]:
    """Whole heads of the largest L1 norm: 1 / ``ratio`` of them, at least one, at full width.

    A head's norm is that of its query, key and value rows and of its columns of the output layer.
    Feed-forward widths are divided as in `strongest`, which also tells ``matched`` and
    the errors.
    """
    return [_kept_heads(model, block, ratio, matched) for block in _checked_blocks(model, ratio)]


@torch.no_grad()
def cut(model: FoundationModel, kept: list[Kept]) -> None:
    """Cut every block to what is kept, in place, so that it computes as if the rest were zero.

    Narrower heads divide scores by the root of the new width, where they are ``scaled``; to make up
    for it query and key rows (of a fused layer the first two thirds) are each multiplied by
    (new width / old width)^(1/4).

    Raises BenchError if ``kept`` does not fit the blocks, Unsupported if attention cannot change.
    """
    blocks = distinct_blocks(model, "pruning")
    if len(kept) != len(blocks):
        raise BenchError(
            f"pruning: {len(kept)} selections for {len(blocks)} blocks; give one for each block"
        )
    for block, chosen in zip(blocks, kept, strict=True):
        _cut_attention(model, block, chosen)
        cut_linear(linear_at(model, block.ff_in), rows=chosen.ff_in)
        cut_linear(linear_at(model, block.ff_out), columns=chosen.ff_out)


def _cut_attention(model: FoundationModel, block: Block, kept: Kept) -> None:
    layers = [linear_at(model, name) for name in block.qkv]
    old = layers[0].out_features // (3 if block.fused else 1) // block.heads
    rows = len(kept.qkv[0]) // (3 if block.fused else 1)
    new, remainder = divmod(rows, kept.heads)
    if remainder or new < 1:
        raise BenchError(
            f"pruning: {block.qkv[0]} would keep {rows} rows for {kept.heads} heads; keep equally "
            "many for each head"
        )
    if new * kept.heads != len(kept.out):
        raise BenchError(
            f"pruning: {block.out} would keep {len(kept.out)} columns for {rows} rows of "
            f"{block.qkv[-1]}; keep equally many"
        )
    for layer, ids in zip(layers, kept.qkv, strict=True):
        cut_linear(layer, rows=ids)
    scaled = 2 * rows if block.fused else rows
    if block.scaled:
        for layer in layers[:1] if block.fused else layers[:2]:
            layer.weight[:scaled] *= (new / old) ** 0.25
            if layer.bias is not None:
                layer.bias[:scaled] *= (new / old) ** 0.25
    cut_linear(linear_at(model, block.out), columns=kept.out)
    model.resize_attention(block, kept.heads, new)


def _checked_blocks(model: FoundationModel, ratio: int) -> list[Block]:
    if ratio < 1:
        raise BenchError(f"pruning: ratio {ratio} would widen the model; use 1 or more")
    blocks = distinct_blocks(model, "pruning")
    for block in blocks:
        geometry(block, partial(linear_at, model), "pruning")
    return blocks


def _kept(model: FoundationModel, block: Block, ratio: int, matched: bool) -> Kept:
    q, k, v, out = _attention_norms(model, block)
    width = _divided(q.shape[1], ratio, block.qkv[0], "head width")
    ff_in, ff_out = _feed_forward(model, block, ratio, matched)
    if matched:
        scores, values = largest(q + k, width), largest(v + out, width)
        both, passed = _flat(scores, q.shape[1]), _flat(values, q.shape[1])
        by_layer = _by_layer(block, both, both, passed, q.numel())
        return Kept(by_layer, passed, ff_in, ff_out, block.heads)
    total = block.heads * width
    if block.fused:
        rows: tuple[Tensor, ...] = (largest(torch.cat([q, k, v]).flatten(), 3 * total),)
    else:
        rows = tuple(largest(part.flatten(), total) for part in (q, k, v))
    return Kept(rows, largest(out.flatten(), total), ff_in, ff_out, block.heads)


def _kept_heads(model: FoundationModel, block: Block, ratio: int, matched: bool) -> Kept:
    q, k, v, out = _attention_norms(model, block)
    heads = 1 if ratio > block.heads else _divided(block.heads, ratio, block.out, "heads")
    ff_in, ff_out = _feed_forward(model, block, ratio, matched)
    chosen = largest((q + k + v + out).sum(dim=1), heads)
    ids = torch.arange(q.numel(), device=q.device).view_as(q)[chosen].flatten()
    return Kept(_by_layer(block, ids, ids, ids, q.numel()), ids, ff_in, ff_out, heads)


@torch.no_grad()
def _attention_norms(model: FoundationModel, block: Block) -> list[Tensor]:
    """L1 norms of the rows of q, k and v and of the columns of out, each (heads, head width)."""
    weights = torch.cat([linear_at(model, name).weight for name in block.qkv])
    parts = [*weights.abs().sum(dim=1).chunk(3), linear_at(model, block.out).weight.abs().sum(0)]
    return [part.view(block.heads, -1) for part in parts]


@torch.no_grad()
def _feed_forward(
    model: FoundationModel, block: Block, ratio: int, matched: bool
) -> tuple[Tensor, Tensor]:
    rows = linear_at(model, block.ff_in).weight.abs().sum(dim=1)
    columns = linear_at(model, block.ff_out).weight.abs().sum(dim=0)
    width = _divided(len(rows), ratio, block.ff_in, "width")
    if matched:
        both = largest(rows + columns, width)
        return both, both
    return largest(rows, width), largest(columns, width)


def _divided(width: int, ratio: int, layer: str, what: str) -> int:
    quotient, remainder = divmod(width, ratio)
    if remainder:
        raise BenchError(
            f"pruning: {layer} has {what} {width}, not divisible by ratio {ratio}; use a divisor"
        )
    return quotient


def _flat(dims: Tensor, head_width: int) -> Tensor:
    """Ids among all rows of dimensions given for each head, (heads, kept) -> (heads * kept,)."""
    first = torch.arange(len(dims), device=dims.device).unsqueeze(1) * head_width
    return (first + dims).flatten()


def _by_layer(block: Block, q: Tensor, k: Tensor, v: Tensor, width: int) -> tuple[Tensor, ...]:
    """Row ids of each layer of ``block.qkv``; ``width`` rows each have query, key and value."""
    return (torch.cat([q, width + k, 2 * width + v]),) if block.fused else (q, k, v)
