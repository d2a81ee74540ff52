"""Linear layers of a model: found by name, cut to some rows or columns, replaced; its task head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel, Unsupported
from bench.contracts.structure import plain_linear


class WrappedLinear(nn.Module):
    """A module in the place of a linear layer, which it keeps at ``linear``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def keep(self, rows: Tensor) -> list[str]:
        """Cut to these output neurons; returns the names of the linear layers inside it cut."""
        cut_linear(self.linear, rows=rows)
        return ["linear"]


def linear_at(model: FoundationModel, name: str) -> nn.Linear:
    """The plain linear layer at ``name``, or inside the `WrappedLinear` there.

    Raises Unsupported if there is another kind of module.
    """
    found = model.module.get_submodule(name)
    return plain_linear(found.linear if isinstance(found, WrappedLinear) else found, name)


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


def own_head(model: FoundationModel, purpose: str) -> list[nn.Parameter]:
    """The head's parameters, to be trained or changed by themselves.

    Raises Unsupported, with ``purpose`` before the reason, if it has none or if its weights are
    tied to another layer, as often to the embedding of tokens.
    """
    head = f"{purpose}: head {model.head_name!r} of {type(model).__name__}"
    parameters = model.head_parameters()
    if not parameters:
        raise Unsupported(f"{head} ({type(model.head).__name__}) has no weights of its own")
    own, inside = {id(p) for p in parameters}, {id(m) for m in model.head.modules()}
    for name, module in model.module.named_modules():
        for attribute, p in module.named_parameters(recurse=False):
            if id(module) not in inside and id(p) in own:
                raise Unsupported(
                    f"{head} is tied to {name}.{attribute}, which would change with it; untie them "
                    "or use a method that leaves the head as it is"
                )
    return parameters


@torch.no_grad()
def widen_head(model: FoundationModel, known: set[int]) -> list[int]:
    """Set the head's rows of all classes that are not ``known`` to zero, in place; returns them.

    Their bias is the task's ``unknown_logit``. As if the head had been that of the known classes
    and were widened once for all that come: the source's training drives the rows of classes that
    it never sees far below the others. Raises Unsupported if the head is no linear layer of its
    own, BenchError if it has no row for a known class.
    """
    head = model.head
    if not isinstance(head, nn.Linear):
        raise Unsupported(f"head {model.head_name!r} is {type(head).__name__}; only Linear widens")
    own_head(model, "widen_head")
    classes = head.out_features - model.rules.further_outputs
    if known and not 0 <= min(known) <= max(known) < classes:
        raise BenchError(
            f"classes {sorted(known)} are not all among the {classes} outputs of the "
            "head; build the model for all classes"
        )
    new = [row for row in range(classes) if row not in known]
    head.weight[new] = 0.0
    if head.bias is not None:
        head.bias[new] = model.rules.unknown_logit
    return new
