"""Linear layers of a model: found by name, cut to some rows or columns, replaced; its task head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import BenchError, Block, FoundationModel


class WrappedLinear(nn.Module):
    """A module in the place of a linear layer, which it keeps at ``linear``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def keep(self, rows: Tensor) -> list[str]:
        """Cut to these output neurons; returns the names of the linear layers inside it cut."""
        cut_linear(self.linear, rows=rows)
        return ["linear"]


def declared_blocks(model: FoundationModel, purpose: str) -> list[Block]:
    """The model's blocks; BenchError that begins with ``purpose`` if it declares none."""
    blocks = model.blocks()
    if not blocks:
        raise BenchError(
            f"{purpose}: {type(model).__name__} declares no blocks; implement blocks()"
        )
    return blocks


def linear_at(model: FoundationModel, name: str) -> nn.Linear:
    """The plain linear layer at ``name``, or inside the `WrappedLinear` there.

    Raises BenchError if there is another kind of module.
    """
    found = model.module.get_submodule(name)
    layer = found.linear if isinstance(found, WrappedLinear) else found
    if not isinstance(layer, nn.Linear):
        raise BenchError(
            f"{name} is {type(found).__name__}, not a plain Linear; undo earlier surgery on it "
            "first, or check blocks()"
        )
    return layer


def replace_module(model: FoundationModel, name: str, new: nn.Module) -> None:
    """Put ``new`` where the module ``name`` was."""
    parent, _, child = name.rpartition(".")
    setattr(model.module.get_submodule(parent), child, new)


@torch.no_grad()
def cut_linear(layer: nn.Linear, rows: Tensor | None = None, columns: Tensor | None = None) -> None:
    """Keep only ``rows`` (output neurons, with their biases) and ``columns`` (inputs), in place:
    int64 tensors of ids in the wanted order; None keeps all.
    """
    if rows is not None:
        layer.weight = _like(layer.weight, layer.weight[rows])
        if layer.bias is not None:
            layer.bias = _like(layer.bias, layer.bias[rows])
        layer.out_features = len(rows)
    if columns is not None:
        layer.weight = _like(layer.weight, layer.weight[:, columns])
        layer.in_features = len(columns)


def _like(old: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=old.requires_grad)


def largest(scores: Tensor, count: int) -> Tensor:
    """Ids of the ``count`` largest scores along the last dimension, in ascending order.

    Of equal scores the first ones are taken.
    """
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values


@torch.no_grad()
def widen_head(model: FoundationModel, known: set[int]) -> list[int]:
    """Set the head's rows of all classes that are not ``known`` to zero, in place; returns them.

    As if the head had been that of the known classes and were widened once for all that come: the
    source's training drives the rows of classes that it never sees far below the others. Raises
    BenchError if the head is no linear layer or has no row for a known class.
    """
    head = model.head
    if not isinstance(head, nn.Linear):
        raise BenchError(f"head {model.head_name!r} is {type(head).__name__}; only Linear widens")
    if known and not 0 <= min(known) <= max(known) < head.out_features:
        raise BenchError(
            f"classes {sorted(known)} are not all among the {head.out_features} outputs of the "
            "head; build the model for all classes"
        )
    new = [row for row in range(head.out_features) if row not in known]
    head.weight[new] = 0.0
    if head.bias is not None:
        head.bias[new] = 0.0
    return new
