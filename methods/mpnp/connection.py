"""How a modality's tokens reach the attention of a decoder's blocks: aligners, gates, prefixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn


class Aligner(nn.Module):
    """GELU(x W1 + b1) W2 + b2, from an encoder's tokens to keys or values of a decoder."""

    def __init__(self, width: int, to: int, expansion: int = 4) -> None:
        super().__init__()
        self.inner = nn.Linear(width, expansion * width)
        self.outer = nn.Linear(expansion * width, to)

    def forward(self, tokens: Tensor) -> Tensor:
        """(n, k, width) to (n, k, to)."""
        return cast(Tensor, self.outer(nn.functional.gelu(self.inner(tokens))))


class Connector(nn.Module):
    """A modality's aligner of keys and its aligner of values."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.key, self.value = Aligner(width, to), Aligner(width, to)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, (n, k, to) each."""
        return self.key(tokens), self.value(tokens)


class Gates(nn.Module):
    """A number w for each linked block, U(-1, 1) at first; the block's weight is sigmoid(w)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(blocks).uniform_(-1, 1))

    def forward(self) -> Tensor:
        """Weights of the linked blocks, (blocks,), in (0, 1)."""
        return self.w.sigmoid()


def prefix_cache(keys: Tensor, values: Tensor, gates: Tensor, heads: int, blocks: int) -> Any:
    """A cache of transformers for ``blocks``, of which the last ``len(gates)`` are linked.

    ``keys``, ``values``: (n, k, width), the same for all; a linked block has both times its gate,
    the others have zeros, since a cache is of one length in all blocks.
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    k, v = (_by_head(part, heads) for part in (keys, values))
    nothing = torch.zeros_like(k)
    first = blocks - len(gates)
    for i in range(blocks):
        if i < first:
            cache.update(nothing, nothing, i)
        else:
            cache.update(gates[i - first] * k, gates[i - first] * v, i)
    return cache


def _by_head(part: Tensor, heads: int) -> Tensor:
    """(n, k, width) as (n, heads, k, width / heads)."""
    return part.unflatten(-1, (heads, -1)).transpose(1, 2)


@contextmanager
def without_prefix(layers: Sequence[nn.Module], tokens: int) -> Iterator[None]:
    """Inside, these blocks see no prefix: no key of the cache, and none in their mask."""

    def cut(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
        mask = named["attention_mask"]
        kept = None if mask is None else mask[..., tokens:]
        return inputs, {**named, "past_key_values": None, "attention_mask": kept}

    with ExitStack() as stack:
        for layer in layers:
            handle = layer.register_forward_pre_hook(cut, with_kwargs=True)
            stack.callback(handle.remove)
        yield
