"""What a method sees of data: batches, and views of a domain with or without labels."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from bench.errors import BenchError, LabelsHidden
from bench.io.digest import digest
from bench.io.fetch_clock import FETCHING

Inputs = Any
"""A tensor whose first dimension is the sample, a dict of such tensors, or `LazyInputs`."""

SampleType = tuple[tuple[int, ...], torch.dtype]
"""Shape and type of one sample's tensor."""


def batch_length(x: Inputs) -> int:
    """Number of samples in a model input."""
    return len(next(iter(x.values()))) if isinstance(x, dict) else len(x)


def take(x: Inputs, indices: Tensor) -> Inputs:
    """The samples at ``indices`` as tensors; lazy inputs are read."""
    return {k: v[indices] for k, v in x.items()} if isinstance(x, dict) else x[indices]


def subset(x: Inputs, indices: Tensor) -> Inputs:
    """The samples at ``indices``: of lazy inputs without reading them, else as `take`."""
    return x.subset(indices) if isinstance(x, LazyInputs) else take(x, indices)


def take_labels(y: Tensor, indices: Tensor) -> Tensor:
    """The labels at ``indices``; classes of pixels, which are kept as uint8, become int64.

    What stands for labels of another process is indexed, and its type known there alone.
    """
    found = y[indices]
    return found.long() if isinstance(found, Tensor) and found.dtype == torch.uint8 else found


def join_labels(parts: Sequence[Tensor]) -> Tensor:
    """The labels of all parts, in their order.

    Lists of boxes (n, boxes, 5) may differ in length: the shorter are filled up with rows of -1.
    """
    if len({part.shape[1:2] for part in parts}) > 1 and all(part.ndim == 3 for part in parts):
        most = max(part.shape[1] for part in parts)
        parts = [
            nn.functional.pad(part, (0, 0, 0, most - part.shape[1]), value=-1.0)
            if part.is_floating_point()
            else part
            for part in parts
        ]
    return torch.cat(list(parts))


def batch_positions(order: Tensor, batch_size: int, least: int = 1) -> list[Tensor]:
    """Split positions into batches; a last one of under ``least`` is joined to the one before."""
    batches = list(order.split(batch_size))
    if batch_size >= least and len(batches) > 1 and len(batches[-1]) < least:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


@contextmanager
def uncounted() -> Iterator[None]:
    """Hide the operators inside from a running `StepTracer`: fetching data is no arithmetic."""
    with _disable_current_modes():
        yield


class LazyInputs(ABC):
    """Inputs of n samples that are read, as from image files, when a batch needs them.

    Subclasses read, name and describe samples of the whole collection; an object stands for those
    at ``positions``, an int64 tensor of shape (n,). Reading runs no operator that a device is
    charged for, and gives a sample's values whatever the batch, the order and the cache.
    """

    def __init__(self, positions: Tensor) -> None:
        self.positions = positions

    @abstractmethod
    def read(self, positions: Tensor) -> Inputs:
        """The samples at ``positions`` of the collection, a tensor or a dict of tensors.

        Raises BenchError that names the file of a sample that cannot be read, and the cure.
        """

    @abstractmethod
    def names(self, positions: Tensor) -> list[str]:
        """What each sample is made of, before corruptions: equal texts are the same sample.

        A digest of its file, say. Splits are disjoint if they share none of them.
        """

    @property
    @abstractmethod
    def sample_types(self) -> dict[str, SampleType]:
        """Shape and type of a sample by the name of the input; "" where that is one tensor."""

    def settings(self) -> Any:
        """What the values depend on beside `names`, as JSON: the size of images, a corruption."""
        return None

    def column(self, name: str) -> Tensor | None:
        """An input of these samples that is known without reading them, as ``app``; else None."""
        return None

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, indices: Tensor) -> Inputs:
        with uncounted(), FETCHING.running():
            return self.read(self.positions[indices])

    def subset(self, indices: Tensor) -> LazyInputs:
        """Those at ``indices``; nothing is read or copied."""
        made = copy.copy(self)
        with uncounted():
            made.positions = self.positions[indices]
        return made

    def sample_names(self) -> list[str]:
        """See `names`, of these samples."""
        return self.names(self.positions)

    @property
    def nbytes(self) -> int:
        """Bytes of all samples as tensors."""
        types = self.sample_types.values()
        return len(self) * sum(torch.Size(shape).numel() * kind.itemsize for shape, kind in types)

    def digest(self) -> str:
        """Digest of the samples in their order: equal for equal values, without reading them."""
        types = {name: [*shape, str(kind)] for name, (shape, kind) in self.sample_types.items()}
        return digest([types, self.settings(), self.sample_names()])


class Placed(LazyInputs):
    """Inputs that lie in this machine's memory or files; what is taken of them is on ``device``.

    The one place where samples move to a GPU. Taking them is counted as it is without a GPU, the
    move is not.
    """

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        super().__init__(torch.arange(0))
        self.inputs, self.device = inputs, device

    def read(self, positions: Tensor) -> Inputs:
        return on_device(take(self.inputs, _on_cpu(positions)), self.device)

    def column(self, name: str) -> Tensor | None:
        found: Tensor | None = None
        if isinstance(self.inputs, LazyInputs):
            found = self.inputs.column(name)
        elif isinstance(self.inputs, dict):
            found = self.inputs.get(name)
        return None if found is None else on_device(found, self.device)

    def names(self, positions: Tensor) -> list[str]:
        found: list[str] = self.inputs.names(self.inputs.positions[positions])
        return found

    @property
    def sample_types(self) -> dict[str, SampleType]:
        if isinstance(self.inputs, LazyInputs):
            return self.inputs.sample_types
        parts = self.inputs if isinstance(self.inputs, dict) else {"": self.inputs}
        return {name: (tuple(part.shape[1:]), part.dtype) for name, part in parts.items()}

    def __len__(self) -> int:
        return batch_length(self.inputs)

    def __getitem__(self, indices: Tensor) -> Inputs:
        return self.read(indices)

    def subset(self, indices: Tensor) -> Placed:
        return Placed(subset(self.inputs, _on_cpu(indices)), self.device)

    @property
    def nbytes(self) -> int:
        parts = self.inputs.values() if isinstance(self.inputs, dict) else [self.inputs]
        return sum(part.nbytes for part in parts)


def placed(x: Inputs, device: torch.device) -> Inputs:
    """Inputs that give their samples on ``device``; as they are where that is the CPU."""
    return x if device.type == "cpu" else Placed(x, device)


def on_device(x: Inputs, device: torch.device) -> Inputs:
    """Tensors on ``device``, which is no arithmetic; the same objects if they are there already."""
    with uncounted():
        if isinstance(x, dict):
            return {name: part.to(device) for name, part in x.items()}
        return x.to(device)


def _on_cpu(indices: Tensor) -> Tensor:
    with uncounted():
        return indices.cpu()


class Batch:
    """Model inputs without labels: ``x`` of n samples; ``len(batch)`` is n.

    ``sample_ids``: positions of the samples in their view, an int64 tensor of shape (n,).
    """

    __slots__ = ("sample_ids", "x")

    def __init__(self, x: Inputs, sample_ids: Tensor) -> None:
        self.x = x
        self.sample_ids = sample_ids

    def __len__(self) -> int:
        return batch_length(self.x)

    @property
    def y(self) -> Tensor:
        """Always raises `LabelsHidden`: the labels are not in this object."""
        raise LabelsHidden(
            "this batch has no labels: its domain is unlabelled for this method; a method "
            "that needs them declares needs = ('target_labels',) and stands under "
            "'supervised_references' in the suite"
        )


class LabelledBatch(Batch):
    """Model inputs ``x`` with their labels ``y``, a tensor as the task has them."""

    __slots__ = ("_y",)

    def __init__(self, x: Inputs, sample_ids: Tensor, y: Tensor) -> None:
        super().__init__(x, sample_ids)
        self._y = y

    @property
    def y(self) -> Tensor:
        return self._y


class Batches(Iterator[Batch]):
    """Batches that a `DomainView` makes: while the next one is made, no code of a method runs."""

    __slots__ = ("_batches",)

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches

    def __next__(self) -> Batch:
        return next(self._batches)

    def first(self, number: int) -> Batches:
        """The next ``number`` of them, which are then taken from these."""
        return Batches(islice(self._batches, number))


class DomainView:
    """The part of a domain that is handed to a method.

    It holds the inputs of one split and, only where the method may see them, the labels. There is
    no way from it to the domain, its other split or its labels, but that lazy inputs know the
    files that they read: for a wall there is ``--isolate-labels``.

    Parameters
    ----------
    name : the domain's name
    x : inputs of n samples
    y : labels of n samples, or None; methods receive uint8, of masks, as int64
    batch_size : samples in a batch; the last one of a pass may be shorter
    generator : of the order of batches: a seed fixes it for all methods
    single_pass : the samples may be adapted on once, whatever number of epochs is asked for
    least_batch : fewest samples of a last batch, see `FoundationModel.least_batch`; a shorter one
        is joined to the batch before
    draw : of the source: which draw of the source model it goes with, from 0. Offline work that is
        cached takes it as the seed of all that it draws, see `preserve_rng`
    """

    def __init__(
        self,
        name: str,
        x: Inputs,
        y: Tensor | None,
        batch_size: int,
        generator: torch.Generator,
        single_pass: bool = False,
        least_batch: int = 1,
        draw: int = 0,
    ) -> None:
        self.name = name
        self.least_batch = least_batch
        self.draw = draw
        self.batch_size = batch_size
        self._x = x
        self._y = self._y_there = y
        self._device = x.device if isinstance(x, Placed) else None
        if y is not None and (self._device is not None or y.dtype == torch.uint8):
            self._y_there = None
        self._generator = generator
        self._single_pass = single_pass
        self._closed = ""

    def __len__(self) -> int:
        return batch_length(self.x)

    def __deepcopy__(self, memo: dict[int, Any]) -> DomainView:
        """A view of the same data, which may be large and are only read, with its own order."""
        made = copy.copy(self)
        memo[id(self)] = made
        made._generator = copy.deepcopy(self._generator, memo)
        return made

    @property
    def x(self) -> Inputs:
        """All inputs of the split."""
        if self._closed:
            raise BenchError(self._closed)
        return self._x

    @property
    def y(self) -> Tensor:
        """All labels of the split; `LabelsHidden` where the view has none."""
        if self._closed:
            raise BenchError(self._closed)
        if self._y is None:
            return Batch(self._x, torch.arange(0)).y
        if self._y.dtype == torch.uint8:  # not kept: it is eight times as large
            return self.labels_at(torch.arange(len(self._y)))
        if self._y_there is None:
            assert self._device is not None
            self._y_there = on_device(self._y, self._device)
        return self._y_there

    def labels_at(self, positions: Tensor) -> Tensor:
        """Labels of some samples; `LabelsHidden` where the view has none."""
        if self._closed or self._y is None or self._y.dtype != torch.uint8:
            return self.y[positions]
        with uncounted():
            y = take_labels(self._y, positions.cpu())
        return y if self._device is None else on_device(y, self._device)

    @property
    def labelled(self) -> bool:
        """Whether this view holds labels."""
        return self._y is not None

    @property
    def nbytes(self) -> int:
        """Bytes that the view's data take on the device's storage."""
        parts = list(self.x.values()) if isinstance(self.x, dict) else [self.x]
        labels = 0
        if self._y is not None:
            labels = self._y.nbytes * (8 if self._y.dtype == torch.uint8 else 1)
        return sum(part.nbytes for part in parts) + labels

    @property
    def rng_state(self) -> Tensor:
        """State of the generator that draws the order of batches."""
        return self._generator.get_state()

    @rng_state.setter
    def rng_state(self, state: Tensor) -> None:
        self._generator.set_state(state)

    @contextmanager
    def preserve_rng(self) -> Iterator[None]:
        """Draw from a fresh generator inside, and go on afterwards as if nothing was drawn.

        For offline work that is cached: whether it is done must not change what follows. The
        fresh generator's seed is the view's ``draw``.
        """
        generator, self._generator = self._generator, torch.Generator().manual_seed(self.draw)
        try:
            yield
        finally:
            self._generator = generator

    def max_passes(self, epochs: int) -> int:
        """How often the samples may be adapted on: ``epochs``, or once in an online stream."""
        return min(epochs, 1) if self._single_pass else epochs

    @property
    def batches_per_pass(self) -> int:
        """How many batches one pass has."""
        with uncounted():
            return len(batch_positions(torch.arange(len(self)), self.batch_size, self.least_batch))

    def batches(self, epochs: int = 1, shuffle: bool = True) -> Batches:
        """``epochs`` passes over the split, each in a new random order, as batches.

        An online stream gives one pass. A method that loops over epochs itself asks `max_passes`.
        """
        return Batches(self._passes(epochs, shuffle))

    def _passes(self, epochs: int, shuffle: bool) -> Iterator[Batch]:
        for _ in range(self.max_passes(epochs)):
            order = self._order() if shuffle else torch.arange(len(self))
            with uncounted():
                batches = batch_positions(order, self.batch_size, self.least_batch)
            for chosen in batches:
                yield self._batch(chosen)

    def infinite(self) -> Iterator[Batch]:
        """Full-size batches for ever; a short last one of a pass is dropped if there are others.

        For the second input of a step, as the source batch beside a target batch.
        """
        n = len(self)
        usable = max(n - n % self.batch_size, min(n, self.batch_size))
        while True:
            for chosen in self._order()[:usable].split(self.batch_size):
                yield self._batch(chosen)

    def close(self, reason: str) -> None:
        """Take the data away: later use raises BenchError with ``reason``."""
        self._closed = reason
        self._x = None
        self._y = self._y_there = None

    def _order(self) -> Tensor:
        with uncounted():
            return torch.randperm(len(self), generator=self._generator)

    def _batch(self, chosen: Tensor) -> Batch:
        with uncounted():
            x = take(self.x, chosen)
            if self._y is not None:
                y = take_labels(self._y, chosen)
                return LabelledBatch(
                    x, chosen, y if self._device is None else on_device(y, self._device)
                )
        return Batch(x, chosen)
