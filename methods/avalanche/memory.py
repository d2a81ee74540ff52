"""Labelled samples as whole tensors: what Avalanche's plugins read of a domain and keep of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from bench.contracts.data import DomainView, Inputs, join_labels, take, uncounted


class _Mapped(dict):
    """A dict of input tensors with the ``to`` that Avalanche calls on inputs."""

    def to(self, device: Any, **_: Any) -> _Mapped:
        """The same inputs on ``device``."""
        return _Mapped({k: v.to(device) for k, v in self.items()})


def portable(x: Inputs) -> Inputs:
    """Inputs that have ``to``, as tensors do."""
    return _Mapped(x) if isinstance(x, dict) else x


def join(parts: Sequence[Inputs]) -> Inputs:
    """The samples of all parts, in their order."""
    if isinstance(parts[0], dict):
        return _Mapped({k: torch.cat([part[k] for part in parts]) for k in parts[0]})
    return torch.cat(list(parts))


class Samples(Dataset):
    """Inputs of n samples with their labels, and where a method keeps them its logits.

    What Avalanche's buffers and data loaders ask of a dataset, with two differences: a loader gets
    whole batches, where Avalanche's fetch sample by sample in thousands of tiny operators that a
    device would be charged for; and ``subset`` copies, where Avalanche's keep the whole domain.
    """

    def __init__(self, x: Inputs, y: Tensor, logits: Tensor | None = None) -> None:
        self.x, self.y, self.logits = portable(x), y, logits

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> int:
        return index

    def collate_fn(self, indices: list[int]) -> list[Any]:
        """Inputs, labels and task labels (all 0) of one batch."""
        chosen = torch.tensor(indices)
        with uncounted():
            return self.take(chosen).as_batch()

    def as_batch(self) -> list[Any]:
        """Inputs, labels and task labels (all 0) of all samples."""
        return [self.x, self.y, torch.zeros_like(self.y)]

    def take(self, chosen: Tensor) -> Samples:
        """A copy of the samples at ``chosen``."""
        logits = None if self.logits is None else self.logits[chosen]
        return Samples(take(self.x, chosen), self.y[chosen], logits)

    def subset(self, indices: Tensor | Sequence[int]) -> Samples:
        """A copy of the samples at ``indices``: nothing else is kept alive."""
        return self.take(torch.as_tensor(indices, dtype=torch.int64))

    def concat(self, other: Any) -> Samples:
        """These samples and the others'."""
        return _joined([self, other]) if len(other) else self

    def tensors(self) -> dict[str, Any]:
        """The samples as plain tensors, for a method's state."""
        x = dict(self.x) if isinstance(self.x, dict) else self.x
        return {"x": x, "y": self.y, "logits": self.logits}


class ViewSamples(Samples):
    """A labelled domain as `Samples`. It holds the view, whose data are storage, not memory."""

    logits = None

    def __init__(self, view: DomainView) -> None:
        self._view = view

    def __len__(self) -> int:
        return len(self._view)

    def take(self, chosen: Tensor) -> Samples:
        """A copy of the samples at ``chosen``, the only ones that are read."""
        return Samples(take(self.x, chosen), self._view.labels_at(chosen))

    @property
    def x(self) -> Inputs:  # type: ignore[override]
        """All inputs of the view."""
        return portable(self._view.x)

    @property
    def y(self) -> Tensor:  # type: ignore[override]
        """All labels of the view."""
        return self._view.y


def draw(groups: Sequence[Samples], n: int, generator: torch.Generator) -> Samples:
    """``n`` samples drawn from the union of the groups, without replacement (all if it has fewer).

    Like the batches of a view they are fetched, which is not counted as arithmetic.
    """
    return draw_counted(groups, n, generator)[0]


def draw_counted(
    groups: Sequence[Samples], n: int, generator: torch.Generator
) -> tuple[Samples, list[int]]:
    """As `draw`, in the order of the groups, and how many are of each."""
    with uncounted():
        chosen = torch.randperm(sum(map(len, groups)), generator=generator)[:n]
        parts, counts, start = [], [], 0
        for group in groups:
            inside = chosen[(chosen >= start) & (chosen < start + len(group))] - start
            start += len(group)
            counts.append(len(inside))
            if len(inside):
                parts.append(group.take(inside))
        return parts[0] if len(parts) == 1 else _joined(parts), counts


def _joined(parts: Sequence[Samples]) -> Samples:
    kept: list[Any] = [part.logits for part in parts]
    logits = None if kept[0] is None else torch.cat(kept)
    return Samples(
        join([part.x for part in parts]), join_labels([part.y for part in parts]), logits
    )


@contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """Let what draws from torch's global generator draw from ``generator`` instead."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def reservoirs_state(policy: Any) -> dict[str, Any]:
    """The reservoirs of an Avalanche balanced buffer as tensors and plain values."""
    return {
        str(key): {"size": b.max_size, "weights": b._buffer_weights, **b.buffer.tensors()}
        for key, b in policy.buffer_groups.items()
    }


def restore_reservoirs(policy: Any, state: Mapping[str, Any]) -> list[Samples]:
    """Put back what `reservoirs_state` gave; the samples, as of `compact`."""
    from avalanche.training.storage_policy import ReservoirSamplingBuffer

    policy.buffer_groups = {}
    for key, kept in state.items():
        buffer = ReservoirSamplingBuffer(kept["size"])
        buffer.buffer = Samples(kept["x"], kept["y"], kept["logits"])
        buffer._buffer_weights = kept["weights"]
        policy.buffer_groups[int(key)] = buffer
    return compact(policy)


def compact(policy: Any) -> list[Samples]:
    """The samples of each reservoir that has any; no weight keeps what it was cut from alive."""
    for buffer in policy.buffer_groups.values():
        buffer._buffer_weights = buffer._buffer_weights.clone()
    return [b.buffer for b in policy.buffer_groups.values() if len(b.buffer)]
