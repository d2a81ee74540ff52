"""Score predictions; the only code that reads labels of test splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.contracts.data import batch_positions, take, take_labels
from bench.contracts.stream import Split
from bench.contracts.task import Score, Task
from bench.costs.tracker import CostTracker
from bench.errors import BenchError
from bench.operators.live_memory import live_tensors
from bench.run.validity import require_causal, require_outputs
from bench.snapshots.content import (
    Content,
    changed_part,
    held_content,
    outside_content,
    random_content,
)
from bench.snapshots.weight_sample import WeightSampler

if TYPE_CHECKING:
    from bench.contracts.method import Method


Scorer = Callable[[], Score]
"""Makes an empty score; labels pass through scores alone."""


class Evaluator:
    """Scores one method's predictions.

    Predictions of a method that did not change are not made again. Raises BenchError if predicting
    changes what the method holds, or gives outputs that are not finite logits of the right shape.

    Parameters
    ----------
    method : as it predicts now; it may change between evaluations
    tracker : prices predictions, and counts steps: after any, nothing is taken as unchanged
    batch_size : samples in a batch
    task, classes : of the stream
    scorer : the metric; by default the task's, taken before a method could replace it
    least_batch : fewest samples of a last batch
    generate : samples of a split whose labels are generated besides, see `Task.generate`
    """

    def __init__(
        self,
        method: Method,
        tracker: CostTracker,
        batch_size: int,
        task: Task,
        classes: int,
        scorer: Scorer | None = None,
        least_batch: int = 1,
        generate: int = 0,
    ) -> None:
        self._method = method
        self._tracker = tracker
        self._batch_size = batch_size
        self._task, self._classes = task, classes
        self._scorer = scorer or task.score
        self._least_batch = least_batch
        self._generate = generate
        if generate:
            task.require_generation()
        self._sampler = WeightSampler()
        self._known: dict[str, tuple[_State, _State, Scores]] = {}

    def scores(self, split: Split, where: str, priced: bool = False) -> Scores:
        """The task's metrics on a split that ``where`` names among all that are evaluated.

        ``priced``: the last full batch (caches are warm by then) sets the cost of inference.
        """
        before = self._state()
        known = self._known.get(where)
        if known is not None and before in known[:2]:
            return known[2]
        scores = self._pass(split, where, priced)
        after = self._state()
        changed = changed_part(before.values, after.values)
        changed = changed or changed_part(before.outside, after.outside)
        if changed is not None:
            raise self._changes(changed)
        if before.is_known and before.settled == after.settled:
            self._known[where] = (before, after, scores)
        return scores

    def online_score(self) -> OnlineScore:
        """The metric over a stream of batches, empty."""
        return OnlineScore(self._task, self._scorer)

    def score_batch(self, split: Split, where: str, score: OnlineScore) -> None:
        """Predict a batch of a stream, once, into ``score``; its weights are watched by samples."""
        held = self._tensors()  # kept alive, so that no other tensor can get its identity
        before = self._sampler.sample(held)
        self._predict(split, where, score.of_batch, False)
        score.add(len(split))
        if self._sampler.sample(self._tensors()) != before:
            raise self._changes("a tensor")

    def _state(self) -> _State:
        held, outside = held_content(self._method), outside_content(self._method)
        return _State(self._steps, random_content(), held, outside)

    @property
    def _steps(self) -> int:
        return self._tracker.counts.total()

    def _pass(self, split: Split, where: str, priced: bool) -> Scores:
        score = self._scorer()
        self._predict(split, where, score, priced and not self._generate)
        if self._generate:
            self._predict_labels(split, score, priced)
        value = self._task.metric.checked(score.compute(), where)
        facts = {metric.name: metric for metric in self._task.further_metrics}
        further = score.further()
        if undeclared := further.keys() - facts:
            raise BenchError(
                f"a score of task {type(self._task).__name__} gives {min(undeclared)!r}, which is "
                "none of its further_metrics: declare it there"
            )
        return Scores(value, {n: facts[n].checked(v, where) for n, v in further.items()})

    def _predict_labels(self, split: Split, score: Score, priced: bool) -> None:
        """Let the method generate labels of the first samples; the first batch is priced."""
        first = torch.arange(min(self._generate, len(split)))
        with torch.no_grad():
            for i, chosen in enumerate(batch_positions(first, self._batch_size, self._least_batch)):
                x, predict = take(split.x, chosen), self._method.predict
                generate = partial(self._task.generate, predict, x, split.y, chosen)
                price = priced and i == 0
                made = self._tracker.inference(len(chosen), generate) if price else generate()
                score.update_generated(made, split.y, chosen)

    def _predict(self, split: Split, where: str, score: Score, priced: bool) -> None:
        batches = batch_positions(torch.arange(len(split)), self._batch_size, self._least_batch)
        full = [i for i, chosen in enumerate(batches) if len(chosen) == self._batch_size]
        to_price = (full[-1] if full else 0) if priced else -1
        who, where = type(self._method).__name__, f"{where} after {self._steps} steps"
        with torch.no_grad():
            for i, chosen in enumerate(batches):
                x = take(split.x, chosen)
                predict = partial(self._method.predict, x)
                outputs = (
                    self._tracker.inference(len(chosen), predict) if i == to_price else predict()
                )
                require_outputs(outputs, len(chosen), self._task, self._classes, who, where)
                if self._task.causal and i == 0:
                    require_causal(self._method.predict, x, outputs, who, where)
                outputs = outputs.detach().as_subclass(Tensor).cpu()
                half = outputs.dtype in (torch.bfloat16, torch.float16)
                score.update(outputs.float() if half else outputs, take_labels(split.y, chosen))

    def _changes(self, what: str) -> BenchError:
        return BenchError(
            f"predict of {type(self._method).__name__} changes the method's state ({what}); this "
            "protocol evaluates what adapt has learned, so predict must only read"
        )

    def _tensors(self) -> list[Tensor]:
        """Every tensor that the method holds and whose changes are counted."""
        tensors = live_tensors([vars(self._method), self._method.stored()])
        return [t for t in tensors if not t.is_inference()]


class OnlineScore:
    """A metric over a stream that is predicted batch by batch.

    One of samples is the mean of the batches' by their sizes; another is of all batches at once.
    ``of_batch``: the score that the next batch goes into.
    """

    def __init__(self, task: Task, scorer: Scorer) -> None:
        self._metric, self._scorer = task.metric, scorer
        self.of_batch = scorer()
        self._total, self._samples = 0.0, 0

    def add(self, samples: int) -> None:
        """A batch of so many samples has gone into ``of_batch``."""
        self._samples += samples
        if self._metric.of_samples:
            self._total += samples * self._metric.checked(self.of_batch.compute(), "a batch")
            self.of_batch = self._scorer()

    def value(self, where: str) -> float:
        """The metric over all batches."""
        if self._metric.of_samples:
            return self._total / self._samples
        return self._metric.checked(self.of_batch.compute(), where)


@dataclass(frozen=True)
class Scores:
    """The task's metric on a split, and its further metrics by name."""

    value: float
    further: Mapping[str, float]


@dataclass(frozen=True)
class _State:
    """All that predictions depend on, see `bench.snapshots.content`."""

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
