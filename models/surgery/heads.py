"""The task head, for classes that come later."""

from __future__ import annotations

import torch
from torch import nn

from bench import BenchError, FoundationModel


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
