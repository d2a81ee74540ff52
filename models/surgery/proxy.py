"""The proxy of a gated knowledge base: a copy with only the neurons that one domain needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from bench import BenchError, FoundationModel

from .gates import gated_layers, kept_count
from .linear import WrappedLinear, largest, replace_module
from .neurons import Slice, slice_pairs


class ScaledLinear(WrappedLinear):
    """A linear layer whose neurons are multiplied by constants, ``multiplier`` of shape (out,)."""

    multiplier: Tensor

    def __init__(self, linear: nn.Linear, multiplier: Tensor) -> None:
        super().__init__(linear)
        self.register_buffer("multiplier", multiplier.detach().clone().to(linear.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Output of shape (..., out)."""
        return cast(Tensor, self.linear(x)) * self.multiplier

    def keep(self, rows: Tensor) -> list[str]:
        self.multiplier = self.multiplier[rows]
        return super().keep(rows)


def most_important(importances: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    """Ids of all neurons but the floor(m * sparsity) least important ones, by the layer's name.

    ``importances``: (m,) by the gated layer's name; ``sparsity`` in [0, 1).
    """
    return {n: largest(g, kept_count(len(g), sparsity)) for n, g in importances.items()}


def make_proxy(
    knowledge_base: FoundationModel, importances: Mapping[str, Tensor], kept: Mapping[str, Tensor]
) -> tuple[FoundationModel, dict[str, Slice]]:
    """An independent copy without gates that has only the neurons kept.

    They are multiplied by their importance. With one sample's importances, taken at a sparsity,
    and the `most_important` neurons at it, both models' outputs on the sample are equal.

    importances : (m,) by the gated layer's name, as a row of `gates.importance`
    kept : int64 ids of neurons by the gated layer's name

    Returns the proxy, and by name a `Slice` for each of its parameters: its part of the original.
    Raises BenchError if importances, kept neurons and gated layers do not fit each other.
    """
    proxy = knowledge_base.clone()
    layers = gated_layers(proxy)
    for name, layer in layers.items():
        neurons = layer.linear.out_features
        found = importances.get(name)
        if found is None or found.shape != (neurons,):
            has = "none" if found is None else f"shape {tuple(found.shape)}"
            raise BenchError(
                f"proxy: importances of {name} have {has}; give one value for each of its "
                f"{neurons} neurons"
            )
        replace_module(proxy, name, ScaledLinear(layer.linear, found))
    for what, names in (("importances", importances), ("kept neurons", kept)):
        unknown = sorted(set(names) - set(layers))
        if unknown:
            raise BenchError(f"proxy: {what} of {unknown[0]}, which has no gate; leave it out")
    cut = slice_pairs(proxy, kept)
    whole = Slice(None, None)
    return proxy, {name: cut.get(name, whole) for name, _ in proxy.module.named_parameters()}
