"""Input-dependent importance of neurons: feature boosting and suppression with k-takes-all.

Gao et al., "Dynamic Channel Pruning: Feature Boosting and Suppression", ICLR 2019, on the inner
layer of every neuron pair, as in EdgeTA's knowledge base.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel
from bench.contracts.data import Inputs

from .linear import WrappedLinear, cut_linear, largest, linear_at, replace_module
from .neurons import pairs


class Gate(nn.Module):
    """Importance of m neurons from their layer's input: ReLU(W2 ReLU(W1 mean|x| + b1) + b2).

    The mean is over a sample's tokens, padding included. W2 is drawn Kaiming-normal and b2
    is 1, so that at first every neuron counts about equally.

    inputs : width of x; neurons : m; the bottleneck has m // reduction units, at least 1
    """

    def __init__(self, inputs: int, neurons: int, reduction: int = 16) -> None:
        super().__init__()
        bottleneck = max(neurons // reduction, 1)
        self.down = nn.Linear(inputs, bottleneck)
        self.up = nn.Linear(bottleneck, neurons)
        nn.init.kaiming_normal_(self.up.weight)
        nn.init.ones_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Importances (n, m) >= 0 from x of shape (n, tokens, inputs) or (n, inputs)."""
        size = x.abs()
        if size.dim() > 2:
            size = size.flatten(1, -2).mean(dim=1)
        return cast(Tensor, self.up(self.down(size).relu()).relu())


class GatedLinear(WrappedLinear):
    """A linear layer whose neurons are multiplied by their importance, the least ones by zero.

    ``sparsity`` is the share of neurons that is zeroed, in [0, 1).
    """

    def __init__(self, linear: nn.Linear, reduction: int = 16) -> None:
        super().__init__(linear)
        self.gate = Gate(linear.in_features, linear.out_features, reduction).to(linear.weight)
        self.sparsity = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (n, ..., out)."""
        factors = keep_largest(self.gate(x), self.sparsity)
        outputs = cast(Tensor, self.linear(x))
        return outputs * factors.view(len(factors), *[1] * (outputs.dim() - 2), -1)

    def keep(self, rows: Tensor) -> list[str]:
        cut_linear(self.gate.up, rows=rows)
        return [*super().keep(rows), "gate.up"]


def kept_count(neurons: int, sparsity: float) -> int:
    """How many of m neurons remain, m - floor(m * sparsity); sparsity in [0, 1)."""
    if not 0 <= sparsity < 1:
        raise BenchError(f"sparsity {sparsity} is not in [0, 1); use a share such as 0.8")
    return neurons - math.floor(neurons * sparsity)


def keep_largest(g: Tensor, sparsity: float) -> Tensor:
    """k-takes-all: ``g`` of shape (n, m) with the floor(m * sparsity) smallest of a row zeroed.

    Of equal values the first ones are kept.
    """
    kept = kept_count(g.shape[1], sparsity)
    if kept == g.shape[1]:
        return g
    mask = torch.zeros_like(g).scatter(1, largest(g.detach(), kept), 1.0)
    return g * mask


def insert_gates(model: FoundationModel, reduction: int = 16) -> list[nn.Parameter]:
    """Gate the inner layer of every neuron pair, in place; returns the gates' parameters.

    Raises BenchError if there is no pair or it has a gate already.
    """
    found = pairs(model)
    if not found:
        raise BenchError(f"gates: {type(model).__name__} declares no blocks; implement blocks()")
    parameters: list[nn.Parameter] = []
    for pair in found:
        if isinstance(model.module.get_submodule(pair.inner), WrappedLinear):
            raise BenchError(f"gates: {pair.inner} has a gate already; insert gates once")
        gated = GatedLinear(linear_at(model, pair.inner), reduction)
        replace_module(model, pair.inner, gated)
        parameters += gated.gate.parameters()
    return parameters


def gated_layers(model: FoundationModel) -> dict[str, GatedLinear]:
    """The gated layers by name; BenchError if there are none."""
    found = {n: m for n, m in model.module.named_modules() if isinstance(m, GatedLinear)}
    if not found:
        raise BenchError(f"gates: {type(model).__name__} has none; call insert_gates() first")
    return found


def set_sparsity(model: FoundationModel, sparsity: float) -> None:
    """Let every gate zero this share of its neurons, in [0, 1)."""
    kept_count(0, sparsity)
    for layer in gated_layers(model).values():
        layer.sparsity = float(sparsity)


@contextmanager
def recorded(model: FoundationModel) -> Iterator[dict[str, Tensor]]:
    """The gates' values before zeroing, (n, m) by the gated layer's name, of the last forward pass.

    They carry gradients if the pass does. The dict is filled by passes inside the context.
    """
    values: dict[str, Tensor] = {}

    def note(name: str, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        values[name] = output

    with ExitStack() as hooks:
        for name, layer in gated_layers(model).items():
            hooks.enter_context(layer.gate.register_forward_hook(partial(note, name)))
        yield values


def importance(model: FoundationModel, x: Inputs) -> dict[str, Tensor]:
    """Importances (n, m) of n samples by the gated layer's name, at the current sparsity.

    Neurons zeroed in one layer change the input of the next, so set the sparsity first at which
    the importances are used. The pass is in evaluation mode, without gradients.
    """
    training = model.module.training
    model.train(False)
    try:
        with torch.no_grad(), recorded(model) as values:
            model(x)
    finally:
        model.train(training)
    return values
