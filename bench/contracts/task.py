"""The contract of a task: what a prediction is, its loss, and its metric over a whole split."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bench import registry
from bench.contracts.data import Inputs
from bench.errors import BenchError

_NO_TEXT = "generate: models of task {} give no text; remove it from the protocol"


@dataclass(frozen=True)
class MetricFacts:
    """What a metric's numbers mean.

    Attributes
    ----------
    name : by which records know it, as "mean-iou"
    title : for tables, as "mean IoU"
    unit : "%" for shares, which records hold in [0, 1]; else as it stands, as "nats"
    higher_is_better : the direction
    lowest, highest : the range; ``math.inf`` where there is no bound
    of_samples : whether it is the mean of a number of each sample
    """

    name: str
    title: str
    unit: str = "%"
    higher_is_better: bool = True
    lowest: float = 0.0
    highest: float = 1.0
    of_samples: bool = False

    def require_share(self) -> None:
        """Raise BenchError unless methods can be compared by this metric."""
        share = self.unit == "%" and 0 <= self.lowest < self.highest <= 1
        if not (share and self.higher_is_better):
            raise BenchError(
                f"metric {self.name!r}: records, tables and tuning take shares in [0, 1], the "
                "higher the better; give 1 - x, or another transform of it, or make it one of "
                "further_metrics"
            )

    def checked(self, value: float, where: str) -> float:
        """``value``; BenchError if it is not finite or outside the range."""
        if not math.isfinite(value) or not self.lowest <= value <= self.highest:
            raise BenchError(
                f"the metric {self.title} is {value:g} on {where}, outside "
                f"[{self.lowest:g}, {self.highest:g}]: check the task's score"
            )
        return value


class Score(ABC):
    """A metric over a whole split, which it receives batch by batch."""

    @abstractmethod
    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Take in the outputs and labels of a batch of n samples."""

    @abstractmethod
    def compute(self) -> float:
        """The metric over all that was taken in; not a number where it is not defined."""

    def further(self) -> dict[str, float]:
        """The task's ``further_metrics`` by name, over all that was taken in.

        Not among them is what is not defined, as the F1 of no label at all.
        """
        return {}

    def update_generated(self, generated: Tensor, y: Tensor, chosen: Tensor) -> None:
        """Take in what `Task.generate` made of the ``chosen`` samples of a split with labels ``y``,
        for further metrics.
        """


class Task(ABC):
    """What outputs and labels of a task are, and what methods act on: its *units*.

    A unit is one decision among the classes: of a sample, a word, a pixel, an answer. Methods for
    classification act on the logits and features of units, and so on every task that has them.
    A subclass is registered as ``@register("task", NAME)``.

    Attributes
    ----------
    metric : of the task, by which methods are compared: a share, the higher the better
    further_metrics : what is recorded besides, on test splits; of any unit and direction
    dense : whether a sample has several units, so that some of them cannot be predicted alone
    ignore : label of what does not count; None where every label counts
    causal : whether labels are later tokens of the inputs, so that outputs may depend on earlier
        tokens alone
    unknown_logit : of a class that a head knows nothing of
    further_outputs : how many numbers a unit has behind its logits, as a box; rows of a linear head
    class_axis : the dimension of outputs along which a unit's logits lie
    preload : modules that are slow to import
    """

    metric: ClassVar[MetricFacts]
    further_metrics: ClassVar[tuple[MetricFacts, ...]] = ()
    dense: ClassVar[bool] = False
    ignore: ClassVar[int | None] = None
    causal: ClassVar[bool] = False
    unknown_logit: ClassVar[float] = 0.0
    further_outputs: ClassVar[int] = 0
    class_axis: ClassVar[int] = -1
    preload: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "metric" in vars(cls):
            cls.metric.require_share()

    # --- what is checked before anything is computed

    @abstractmethod
    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        """Raise BenchError, naming ``where``, unless ``y`` are labels of ``n`` samples."""

    def require_fit(self, y: Tensor, shape: tuple[int, ...], where: str) -> None:
        """Raise BenchError unless labels fit samples of this shape; by default they do."""

    @abstractmethod
    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        """Raise BenchError unless this is the shape of outputs for ``n`` samples."""

    # --- loss and metric

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean loss over the labels that count, a scalar."""

    @abstractmethod
    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        """Mean loss of a student's outputs to those of its teacher, a scalar."""

    @abstractmethod
    def score(self) -> Score:
        """The task's metric, empty."""

    # --- generation, where ``protocol: {generate: N}`` asks for it

    def require_generation(self) -> None:
        """Raise BenchError, before anything is computed, where labels cannot be generated."""
        raise BenchError(_NO_TEXT.format(type(self).__name__))

    def generate(
        self, predict: Callable[[Inputs], Tensor], x: Inputs, y: Tensor, chosen: Tensor
    ) -> Tensor:
        """Labels that a model makes token by token, in the shape of those of ``chosen``.

        ``x``: the inputs of these, of which ``predict`` sees no answers; ``y``: the labels of their
        whole split, which tell where answers begin, and what ends one.
        """
        raise BenchError(_NO_TEXT.format(type(self).__name__))

    # --- units: the same order in all of them

    @abstractmethod
    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        """Logits (units, classes) of the decisions that count: none on padding."""

    @abstractmethod
    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        """Features (units, width) of the units, from those before the head."""

    @abstractmethod
    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        """One feature for each sample, (n, width): what alignment of domains compares."""

    @abstractmethod
    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        """Classes (units,) of the units at `places`; ``ignore`` where there is no label."""

    @abstractmethod
    def places(self, outputs: Tensor, x: Inputs) -> Any:
        """Where the units of a batch are in its labels, for `packed` and `unit_labels`."""

    @abstractmethod
    def packed(self, labels: Tensor, places: Any) -> Tensor:
        """Classes (units,) in the shape of a batch's labels, for the loss and for replay."""

    def sample_labels(self, outputs: Tensor, x: Inputs, classes: int) -> Tensor:
        """Labels that fit outputs, with all classes in turn: for checks, which have no data."""
        units = len(self.units(outputs, x))
        return self.packed(torch.arange(units) % classes, self.places(outputs, x))

    def aligned(self, features: Tensor, outputs: Tensor) -> bool:
        """Whether there are features for every unit of the outputs."""
        return features.shape[:-1] == outputs.shape[:-1]

    def present(self, y: Tensor) -> set[int]:
        """The classes that labels name."""
        classes = np.unique(y.cpu().numpy())  # not torch's, which would be counted
        return {int(c) for c in classes if c != self.ignore}


def make_task(name: str) -> Task:
    """The task of a name; BenchError if there is none."""
    task: Task = registry.load("task", name)()
    return task
