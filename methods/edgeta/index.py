"""The neuron index: each neuron of the knowledge base as a combination of the model's neurons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel
from bench.models.surgery.linear import WrappedLinear, linear_at
from bench.models.surgery.lora import LoraLinear
from bench.models.surgery.low_rank import LowRankLinear


@dataclass(frozen=True)
class Part:
    """A weight matrix with a row per neuron: a parameter or a third of its rows, or transposed."""

    name: str
    third: int | None = None
    columns: bool = False

    def read(self, weights: dict[str, Tensor]) -> Tensor:
        """The matrix, (neurons, width): a view of the weights."""
        matrix = weights[self.name]
        if matrix.dim() == 1:
            matrix = matrix.unsqueeze(1)
        if self.third is not None:
            matrix = matrix.chunk(3)[self.third]
        return matrix.t() if self.columns else matrix


@dataclass(frozen=True)
class Group:
    """Neurons of one kind in one block, matched between knowledge base and model.

    ``kb`` and ``fm``: the parts of a neuron's weights, side by side. ``stacked``: parts of the
    model are further neurons instead, below one another (a weight and its LoRA product).
    """

    name: str
    kb: tuple[Part, ...]
    fm: tuple[Part, ...]
    stacked: bool = False

    def kb_matrix(self, weights: dict[str, Tensor]) -> Tensor:
        """K of shape (neurons of the knowledge base, width)."""
        return torch.cat([part.read(weights) for part in self.kb], dim=1)

    def fm_matrix(self, weights: dict[str, Tensor]) -> Tensor:
        """F of shape (neurons of the model, width)."""
        return torch.cat([part.read(weights) for part in self.fm], dim=0 if self.stacked else 1)

    def add_to_fm(self, weights: dict[str, Tensor], change: Tensor) -> None:
        """F += change, in place."""
        for matrix, piece in _pieces(self.fm, weights, change, 0 if self.stacked else 1):
            matrix.add_(piece)

    def write_to_kb(self, weights: dict[str, Tensor], values: Tensor) -> None:
        """K = values, in place."""
        for matrix, piece in _pieces(self.kb, weights, values, 1):
            matrix.copy_(piece)


def _pieces(
    parts: tuple[Part, ...], weights: dict[str, Tensor], values: Tensor, dim: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each part's matrix with its piece of ``values``, which lie along ``dim``."""
    matrices = [part.read(weights) for part in parts]
    return zip(matrices, values.split([m.shape[dim] for m in matrices], dim), strict=True)


def paired_groups(kb: FoundationModel, fm: FoundationModel) -> list[Group]:
    """Groups in which a neuron has all its weights, so that it stays one neuron.

    Query and key dimensions (which are multiplied with each other), values with their columns of
    the output layer, feed-forward rows with their columns: what enters and what leaves a neuron
    is combined by the same numbers. Layers that were factorised have no neurons in common with
    the model's and are left out.
    """
    groups = []
    for small, large in zip(kb.blocks(), fm.blocks(), strict=True):
        both = ((kb, small), (fm, large))
        if not isinstance(kb.module.get_submodule(small.out), LowRankLinear):
            q, k, v = ([_rows(model, block.qkv, i) for model, block in both] for i in range(3))
            groups.append(Group(f"{large.qkv[0]}.query-key", (q[0], k[0]), (q[1], k[1])))
            out = [Part(_weight(model, block.out), columns=True) for model, block in both]
            groups.append(Group(f"{large.out}.value", (v[0], out[0]), (v[1], out[1])))
        rows = [Part(_weight(model, block.ff_in)) for model, block in both]
        columns = [Part(_weight(model, block.ff_out), columns=True) for model, block in both]
        groups.append(Group(large.ff_in, (rows[0], columns[0]), (rows[1], columns[1])))
    return groups


def released_groups(kb: FoundationModel, fm: FoundationModel) -> list[Group]:
    """Groups as in EdgeTA's release: each matrix, and each normalization's scale, by itself.

    Query, key and value layers (a fused one as a whole) have the model's weight and, where it is
    not fused, its LoRA product below it; the attention's output layer is not matched.
    """
    groups = []
    for small, large in zip(kb.blocks(), fm.blocks(), strict=True):
        if not isinstance(kb.module.get_submodule(small.out), LowRankLinear):
            for own, other in zip(small.qkv, large.qkv, strict=True):
                below: tuple[Part, ...] = (Part(_weight(fm, other)),)
                if isinstance(fm.module.get_submodule(other), LoraLinear):
                    below += (Part(f"{other}.lora_product"),)
                groups.append(Group(other, (Part(_weight(kb, own)),), below, stacked=True))
        pairs = ((small.ff_in, large.ff_in, False), (small.ff_out, large.ff_out, True))
        for own, other, columns in pairs:
            kb_part = Part(_weight(kb, own), columns=columns)
            groups.append(Group(other, (kb_part,), (Part(_weight(fm, other), columns=columns),)))
    known = dict(fm.module.named_parameters())
    for name, layer in kb.module.named_modules():
        if isinstance(layer, nn.LayerNorm) and f"{name}.weight" in known:
            part = Part(f"{name}.weight")
            groups.append(Group(name, (part,), (part,)))
    return groups


def _rows(model: FoundationModel, qkv: tuple[str, ...], i: int) -> Part:
    fused = len(qkv) == 1
    return Part(_weight(model, qkv[0 if fused else i]), third=i if fused else None)


def _weight(model: FoundationModel, name: str) -> str:
    found = model.module.get_submodule(name)
    if isinstance(found, LoraLinear):
        return f"{name}.base.weight"
    linear_at(model, name)
    return f"{name}.linear.weight" if isinstance(found, WrappedLinear) else f"{name}.weight"


class NeuronIndex(nn.Module):
    """Matrices I with K ~ I F for every group, whose weights lie in ``kb`` and ``fm``.

    ``neurons``: number of nonzero entries in a row of I, for the model's neurons most like
    the knowledge base's, fitted by least squares; None: a dense I of zeros, as released.
    """

    def __init__(
        self, groups: list[Group], kb: dict[str, Tensor], fm: dict[str, Tensor], neurons: int | None
    ) -> None:
        super().__init__()
        self.groups = groups
        self.values = nn.ParameterList()
        for i, group in enumerate(groups):
            k, f = group.kb_matrix(kb).detach(), group.fm_matrix(fm).detach()
            if neurons is None:
                values = k.new_zeros(len(k), len(f))
            else:
                support = _most_alike(k, f, min(neurons, len(f)))
                self.register_buffer(f"support_{i}", support)
                values = _least_squares(k, f, support)
            self.values.append(nn.Parameter(values))

    def _each(self) -> Iterator[tuple[Group, Tensor, Tensor | None]]:
        for i, (group, values) in enumerate(zip(self.groups, self.values, strict=True)):
            yield group, values, cast(Tensor | None, getattr(self, f"support_{i}", None))

    def loss(self, kb: dict[str, Tensor], fm: dict[str, Tensor]) -> Tensor:
        """Sum over groups of |I F - K|_F^2, a scalar."""
        terms = [
            (_combined(values, support, group.fm_matrix(fm)) - group.kb_matrix(kb)).pow(2).sum()
            for group, values, support in self._each()
        ]
        return torch.stack(terms).sum()

    @torch.no_grad()
    def residuals(self, kb: dict[str, Tensor], fm: dict[str, Tensor]) -> dict[str, float]:
        """|I F - K|_F / |K|_F by group: 0 is a perfect index, 1 one that knows nothing."""
        found = {}
        for group, values, support in self._each():
            k = group.kb_matrix(kb)
            away = _combined(values, support, group.fm_matrix(fm)) - k
            found[group.name] = float(away.norm() / k.norm().clamp_min(1e-12))
        return found

    @torch.no_grad()
    def refit(self, kb: dict[str, Tensor], fm: dict[str, Tensor]) -> None:
        """Set a sparse index's entries by least squares to the weights as they are."""
        for group, values, support in self._each():
            if support is not None:
                values.copy_(_least_squares(group.kb_matrix(kb), group.fm_matrix(fm), support))

    @torch.no_grad()
    def to_fm(
        self, before: dict[str, Tensor], kb: dict[str, Tensor], fm: dict[str, Tensor], rate: float
    ) -> None:
        """W_fm += rate I^T (W_kb - W_kb before), in place, in every group."""
        for group, values, support in self._each():
            change = group.kb_matrix(kb) - group.kb_matrix(before)
            f = group.fm_matrix(fm)
            group.add_to_fm(fm, rate * _transposed(values, support, change, len(f)))

    @torch.no_grad()
    def read(self, fm: dict[str, Tensor]) -> list[Tensor]:
        """I W_fm of every group: the knowledge base as the index writes it, in its own shapes."""
        return [
            _combined(values, support, group.fm_matrix(fm))
            for group, values, support in self._each()
        ]

    @torch.no_grad()
    def to_kb(self, kb: dict[str, Tensor], fm: dict[str, Tensor], rate: float) -> None:
        """W_kb = rate I W_fm + (1 - rate) W_kb, in place, in every group."""
        for group, read in zip(self.groups, self.read(fm), strict=True):
            group.write_to_kb(kb, rate * read + (1 - rate) * group.kb_matrix(kb))

    @torch.no_grad()
    def change_to_kb(
        self, before: list[Tensor], kb: dict[str, Tensor], fm: dict[str, Tensor], rate: float
    ) -> None:
        """W_kb += rate I (W_fm - W_fm before), in place, in every group.

        ``before``: what `read` gave of the model as it was. Where the model is still the same, the
        knowledge base stays bit for bit, however badly the index fits.
        """
        for group, was, now in zip(self.groups, before, self.read(fm), strict=True):
            group.write_to_kb(kb, group.kb_matrix(kb) + rate * (now - was))

    def require_residual(
        self, kb: dict[str, Tensor], fm: dict[str, Tensor], rate: float, limit: float | None
    ) -> None:
        """Raise BenchError if one `to_kb` with ``rate`` moves a group further than ``limit``.

        Of a model that has not changed: the move is rate |I F - K|_F, here relative to |K|_F.
        """
        if limit is None:
            return
        found = self.residuals(kb, fm)
        name = max(found, key=lambda n: (math.isnan(found[n]), found[n]))  # else max() skips nan
        worst = found[name]
        if not rate * worst <= limit:  # not a number is too large
            raise BenchError(
                f"neuron index: the residual of {name} is {worst:.3g}, and fm_to_kb {rate:g} times "
                f"it is above max_residual {limit:g}: feedback would harm the knowledge base; use "
                "model_feedback: change, a lower fm_to_kb, more index_neurons or index_steps"
            )


def _most_alike(k: Tensor, f: Tensor, neurons: int) -> Tensor:
    """Ids (neurons of K, n) of the rows of F along which those of K have most of their length."""
    along = (k @ f.t()).abs() / f.norm(dim=1).clamp_min(1e-12)
    return along.argsort(dim=1, descending=True, stable=True)[:, :neurons].sort(dim=1).values


def _least_squares(k: Tensor, f: Tensor, support: Tensor) -> Tensor:
    """Entries (neurons of K, n) of least |sum_j a_j F_j - K_i|^2, slightly damped."""
    atoms = f[support]
    gram = atoms @ atoms.transpose(1, 2)
    scale = gram.diagonal(dim1=1, dim2=2).mean(dim=1).clamp_min(1e-12)
    damped = gram + 1e-4 * scale.view(-1, 1, 1) * torch.eye(gram.shape[1]).to(gram)
    return torch.linalg.solve(damped, (atoms @ k.unsqueeze(2))).squeeze(2)


def _combined(values: Tensor, support: Tensor | None, f: Tensor) -> Tensor:
    """I F."""
    if support is None:
        return values @ f
    return nn.functional.embedding_bag(support, f, per_sample_weights=values, mode="sum")


def _transposed(values: Tensor, support: Tensor | None, change: Tensor, rows: int) -> Tensor:
    """I^T change, (rows, width)."""
    if support is None:
        return values.t() @ change
    spread = (values.unsqueeze(2) * change.unsqueeze(1)).flatten(0, 1)
    return change.new_zeros(rows, change.shape[1]).index_add_(0, support.flatten(), spread)
