"""Neurons that can be left out: pairs of layers that meet in them, and cutting them away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench import BenchError, FoundationModel
from bench.errors import did_you_mean

from .linear import WrappedLinear, cut_linear, linear_at
from .low_rank import LowRankLinear


@dataclass(frozen=True)
class Pair:
    """Names of two layers: output neuron i of ``inner`` meets input column i of ``outer``.

    A neuron multiplied by zero contributes nothing, as what lies between maps 0 to 0 (GELU,
    ReLU, or nothing). ``inner`` may name a module that wraps the layer.
    """

    inner: str
    outer: str


def pairs(model: FoundationModel) -> list[Pair]:
    """The feed-forward layers of every block and the two factors of every `LowRankLinear`."""
    forward = [Pair(block.ff_in, block.ff_out) for block in model.blocks()]
    factors = [
        Pair(f"{name}.down", f"{name}.up")
        for name, layer in model.module.named_modules()
        if isinstance(layer, LowRankLinear)
    ]
    return forward + factors


@dataclass(frozen=True, eq=False)
class Slice:
    """The part of a parameter that a cut copy holds: int64 ids of rows and columns, None: all.

    A bias has rows only.
    """

    rows: Tensor | None
    columns: Tensor | None

    def gather(self, tensor: Tensor) -> Tensor:
        """The part of ``tensor``, of the uncut parameter's shape; may share its memory."""
        return tensor[self._index]

    def scatter(self, into: Tensor, part: Tensor) -> Tensor:
        """A copy of ``into``, of the uncut parameter's shape, with ``part`` in its places."""
        filled = into.clone()
        filled[self._index] = part
        return filled

    @property
    def _index(self) -> Any:
        if self.columns is None:
            return slice(None) if self.rows is None else self.rows
        return (slice(None) if self.rows is None else self.rows.unsqueeze(1), self.columns)


def slice_pairs(model: FoundationModel, kept: Mapping[str, Tensor]) -> dict[str, Slice]:
    """Cut pairs to the neurons kept, in place: rows of the inner, columns of the outer layer.

    ``kept``: int64 ids of neurons by the inner layer's name; pairs not in it stay whole. Returns
    what was kept of every cut parameter, by name. Raises BenchError if a name begins no pair.
    """
    outer = {pair.inner: pair.outer for pair in pairs(model)}
    slices: dict[str, Slice] = {}
    for inner, rows in kept.items():
        if inner not in outer:
            raise BenchError(f"no neuron pair begins at {inner!r}: {did_you_mean(inner, outer)}")
        for name in _keep_rows(model, inner, rows):
            for parameter, _ in model.module.get_submodule(name).named_parameters():
                slices[f"{name}.{parameter}"] = Slice(rows, None)
        cut_linear(linear_at(model, outer[inner]), columns=rows)
        slices[f"{outer[inner]}.weight"] = Slice(None, rows)
    return slices


def _keep_rows(model: FoundationModel, inner: str, rows: Tensor) -> list[str]:
    layer = model.module.get_submodule(inner)
    if isinstance(layer, WrappedLinear):
        return [f"{inner}.{name}" for name in layer.keep(rows)]
    cut_linear(linear_at(model, inner), rows=rows)
    return [inner]
