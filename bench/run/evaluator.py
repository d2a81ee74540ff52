"""Score predictions; the only code that reads labels of test splits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.contracts.content import (
    Content,
    changed_part,
    held_content,
    outside_content,
    random_content,
)
from bench.contracts.data import batch_positions, take
from bench.contracts.stream import Split
from bench.costs.tracker import CostTracker
from bench.errors import BenchError
from bench.operators.live_memory import live_tensors
from bench.run.validity import require_outputs, require_scores
from bench.run.weight_sample import WeightSampler

if TYPE_CHECKING:
    from bench.contracts.method import Method
    from bench.contracts.model import FoundationModel


Scorer = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) -> the metric of each sample; labels pass through nothing else."""


def make_scorer(model: FoundationModel) -> Scorer:
    """The model's task metric, copied before a method could replace it."""
    return MethodType(type(model).correct, copy.copy(model))


class Evaluator:
    """Scores one method's predictions.

    Predictions of a method that did not change are not made again. Raises BenchError if predicting
    changes what the method holds, or gives outputs that are not finite logits of the right shape.

    Parameters
    ----------
    method : as it predicts now; it may change between evaluations
    tracker : prices predictions, and counts steps: after any, nothing is taken as unchanged
    batch_size : samples in a batch
    correct : the metric
    classes : columns that outputs must have; None for tasks other than classification
    least_batch : fewest samples of a last batch
    """

    def __init__(
        self,
        method: Method,
        tracker: CostTracker,
        batch_size: int,
        correct: Scorer,
        classes: int | None = None,
        least_batch: int = 1,
    ) -> None:
        self._method = method
        self._tracker = tracker
        self._batch_size = batch_size
        self._correct = correct
        self._classes = classes
        self._least_batch = least_batch
        self._sampler = WeightSampler()
        self._known: dict[str, tuple[_State, _State, float]] = {}

    def accuracy(self, split: Split, where: str, priced: bool = False) -> float:
        """Accuracy in [0, 1] on a split that ``where`` names among all that are evaluated.

        ``priced``: the last full batch (caches are warm by then) sets the cost of inference.
        """
        before = self._state()
        known = self._known.get(where)
        if known is not None and before in known[:2]:
            return known[2]
        accuracy = self._pass(split, where, priced)
        after = self._state()
        changed = changed_part(before.values, after.values)
        changed = changed or changed_part(before.outside, after.outside)
        if changed is not None:
            raise self._changes(changed)
        if before.is_known and before.settled == after.settled:
            self._known[where] = (before, after, accuracy)
        return accuracy

    def batch_accuracy(self, split: Split, where: str) -> float:
        """As `accuracy` for a batch of a stream: predicted once, its weights watched by samples."""
        held = self._tensors()  # kept alive, so that no other tensor can get its identity
        before = self._sampler.sample(held)
        accuracy = self._pass(split, where, False)
        if self._sampler.sample(self._tensors()) != before:
            raise self._changes("a tensor")
        return accuracy

    def _state(self) -> _State:
        held, outside = held_content(self._method), outside_content(self._method)
        return _State(self._steps, random_content(), held, outside)

    @property
    def _steps(self) -> int:
        return self._tracker.counts.total()

    def _pass(self, split: Split, where: str, priced: bool) -> float:
        batches = batch_positions(torch.arange(len(split)), self._batch_size, self._least_batch)
        full = [i for i, chosen in enumerate(batches) if len(chosen) == self._batch_size]
        to_price = (full[-1] if full else 0) if priced else -1
        who, where = type(self._method).__name__, f"{where} after {self._steps} steps"
        hits = 0.0
        with torch.no_grad():
            for i, chosen in enumerate(batches):
                x = take(split.x, chosen)
                predict = partial(self._method.predict, x)
                outputs = (
                    self._tracker.inference(len(chosen), predict) if i == to_price else predict()
                )
                require_outputs(outputs, len(chosen), self._classes, who, where)
                plain = outputs.detach().as_subclass(Tensor)
                scores = self._correct(plain, split.y[chosen])
                require_scores(scores, len(chosen), where)
                hits += float(scores.sum())
        return hits / len(split)

    def _changes(self, what: str) -> BenchError:
        return BenchError(
            f"predict of {type(self._method).__name__} changes the method's state ({what}); this "
            "protocol evaluates what adapt has learned, so predict must only read"
        )

    def _tensors(self) -> list[Tensor]:
        """Every tensor that the method holds and whose changes are counted."""
        tensors = live_tensors([vars(self._method), self._method.stored()])
        return [t for t in tensors if not t.is_inference()]


@dataclass(frozen=True)
class _State:
    """All that predictions depend on, see `bench.contracts.content`."""

    steps: int
    draws: bytes
    held: Mapping[str, Content]
    outside: Mapping[str, Content]

    @property
    def values(self) -> dict[str, bytes]:
        """Digests of the tensors and arrays of each part that is held."""
        return {name: content.values for name, content in self.held.items()}

    @property
    def settled(self) -> list[Any]:
        """All but the modes of modules, which predicting may set."""
        parts = [{n: c.settled for n, c in each.items()} for each in (self.held, self.outside)]
        return [self.steps, self.draws, *parts]

    @property
    def is_known(self) -> bool:
        """Whether nothing is in it that cannot be seen."""
        return all(c.all is not None for c in (*self.held.values(), *self.outside.values()))
