"""Partial retraining: of each layer only some neurons are trained, the others stay as they are.

An unused variant of EdgeTA's release trains a fifth of the neurons, those whose weights differ
most after a step. It compares the weights without taking the step, so that all differences are
zero and the choice is arbitrary (defect W14); here it is one of the selectors, ``released``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from bench import BenchError
from bench.models.surgery.linear import largest

Selector = Literal["gradient", "random", "inverse", "released"]


@torch.no_grad()
def chosen_rows(
    layers: Mapping[str, nn.Linear], share: float, selector: Selector
) -> dict[str, Tensor]:
    """Ids of the neurons to train, ceil(share m) of the m of each layer, ascending, by its name.

    ``gradient``: those of the largest sum of |dL/dw| over a neuron's weights and bias, which is
    how far a plain gradient step moves them (AdamW's first step moves all alike); ``inverse``: of
    the smallest; ``random``: drawn from torch's global generator; ``released``: of differences
    that are all zero, the first ones. Raises BenchError where gradients are needed and missing.
    """
    rows = {}
    for name, layer in layers.items():
        count = max(math.ceil(share * layer.out_features), 1)
        rows[name] = largest(_scores(name, layer, selector), count)
    return rows


def _scores(name: str, layer: nn.Linear, selector: Selector) -> Tensor:
    if selector == "random":
        return torch.rand(layer.out_features)
    if selector == "released":
        return torch.zeros(layer.out_features)
    if layer.weight.grad is None:
        raise BenchError(f"partial retraining: {name} has no gradient; run a backward pass first")
    moved = layer.weight.grad.abs().sum(dim=1)
    if layer.bias is not None and layer.bias.grad is not None:
        moved = moved + layer.bias.grad.abs()
    return -moved if selector == "inverse" else moved


@contextmanager
def training_only(layers: Mapping[str, nn.Linear], rows: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside, gradients of all other neurons of these layers are zero.

    An optimizer without weight decay and without earlier moments then leaves them as they are.
    """
    handles = []
    for name, layer in layers.items():
        mask = torch.zeros_like(layer.weight[:, 0]).index_fill_(0, rows[name], 1.0).detach()
        for parameter, shaped in ((layer.weight, mask.unsqueeze(1)), (layer.bias, mask)):
            if parameter is not None and parameter.requires_grad:
                handles.append(parameter.register_hook(shaped.mul))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
