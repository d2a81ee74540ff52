"""Splits joined, divided and compared by what their samples are made of."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import LazyInputs, Split
from bench.contracts.data import Inputs, SampleType, join_labels, subset


def joined(splits: Sequence[Split]) -> Split:
    """The samples of all splits, one split after another."""
    if len(splits) == 1:
        return splits[0]
    y = join_labels([split.y for split in splits])
    return Split(_joined_inputs([split.x for split in splits]), y)


def part_of(split: Split, chosen: Tensor) -> Split:
    """The samples of a split at ``chosen``."""
    return Split(subset(split.x, chosen), split.y[chosen])


def sample_names(x: Inputs) -> list[str]:
    """What each sample is made of, see `LazyInputs.names`; of tensors a digest of the values."""
    if isinstance(x, LazyInputs):
        return x.sample_names()
    parts = list(x.values()) if isinstance(x, dict) else [x]
    arrays = [part.contiguous().numpy() for part in parts]
    return [
        hashlib.sha256(b"".join(array[i].tobytes() for array in arrays)).hexdigest()
        for i in range(len(arrays[0]))
    ]


def divide(
    names: Sequence[str], y: Tensor, share: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Positions of samples in their order: those that stay, and a ``share`` that is held out.

    Samples of one name stay together; where labels are one class a sample, each class is divided
    alike. Each side gets a sample at least, if there are two.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(names):
        groups[name].append(position)
    classes = y.tolist() if y.ndim == 1 else [0] * len(names)
    of_class: dict[Any, list[list[int]]] = defaultdict(list)
    for group in groups.values():
        of_class[classes[group[0]]].append(group)
    held: list[int] = []
    for _, members in sorted(of_class.items()):
        n = round(share * len(members))
        if len(of_class) == 1 and len(members) > 1:
            n = min(max(n, 1), len(members) - 1)
        for i in generator.permutation(len(members))[:n]:
            held += members[i]
    inside = torch.zeros(len(names), dtype=torch.bool)
    inside[torch.tensor(held, dtype=torch.int64)] = True
    return (~inside).nonzero().squeeze(1), inside.nonzero().squeeze(1)


def without(split: Split, *others: Split) -> Split:
    """The samples that are in none of the others."""
    known = {name for other in others for name in sample_names(other.x)}
    here = sample_names(split.x)
    kept = [i for i, name in enumerate(here) if name not in known]
    return (
        split if len(kept) == len(here) else part_of(split, torch.tensor(kept, dtype=torch.int64))
    )


def parts_at(x: LazyInputs, positions: Tensor) -> list[tuple[Any, int]]:
    """Of each sample the inputs that read it, and its position there, through joined inputs."""
    if not isinstance(x, _Joined):
        return [(x, i) for i in positions.tolist()]
    return [parts_at(part, torch.tensor([i]))[0] for part, i in x.at(positions)]


def _joined_inputs(parts: Sequence[Inputs]) -> Inputs:
    if isinstance(parts[0], LazyInputs):
        return _Joined(parts)
    if isinstance(parts[0], dict):
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return torch.cat(list(parts))


class _Joined(LazyInputs):
    """Lazy inputs one after another."""

    def __init__(self, parts: Sequence[LazyInputs]) -> None:
        super().__init__(torch.arange(sum(map(len, parts))))
        self._parts = parts
        ends = torch.tensor([len(part) for part in parts]).cumsum(0)
        self._ends, self._starts = ends, ends - ends.diff(prepend=torch.tensor([0]))

    def read(self, positions: Tensor) -> Inputs:
        of_part = torch.bucketize(positions, self._ends, right=True)
        rows, found = [], []
        for i in of_part.unique().tolist():
            chosen = (of_part == i).nonzero().squeeze(1)
            rows.append(chosen)
            found.append(self._parts[i][positions[chosen] - self._starts[i]])
        back = torch.cat(rows).argsort()
        return subset(_joined_inputs(found), back)

    def at(self, positions: Tensor) -> list[tuple[LazyInputs, int]]:
        """The part that each sample is of, and its position in the part's collection."""
        every = [(part, i) for part in self._parts for i in part.positions.tolist()]
        return [every[i] for i in positions.tolist()]

    def names(self, positions: Tensor) -> list[str]:
        every = [name for part in self._parts for name in part.sample_names()]
        return [every[i] for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return self._parts[0].sample_types

    def settings(self) -> Any:
        return [part.settings() for part in self._parts]
