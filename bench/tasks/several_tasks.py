"""Several tasks at once: applications on one device, each with a task of its own."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score, Task
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.applications import APP, IGNORED, MOST, UNITS, by_owner, owners
from bench.tasks.class_scores import COMMONEST_CLASS
from bench.tasks.classification import NOT_NUMBERS, require_classes, soft_cross_entropy

OF_ONE = tuple(
    MetricFacts(f"application-{app}", f"accuracy of application {app}") for app in range(MOST)
)
"""Of each application by itself."""


class ApplicationsScore(Score):
    """Mean over the applications of the share of their units that the highest logit meets.

    A sentence of a hundred words so counts no more than its application's share.
    ``application-N``: of one application; ``commonest-class``: the mean over applications of the
    share of the most frequent class of each.
    """

    def __init__(self) -> None:
        self._hits: Counter[int] = Counter()
        self._classes: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, units, classes); ``y``: (n, 1 + units)."""
        require_aligned(outputs, y)
        chosen = outputs.argmax(dim=2)
        for app, rows in by_owner(y[:, 0]):
            labels = y[rows, 1:]
            counted = labels != IGNORED
            self._hits[app] += int((chosen[rows] == labels)[counted].sum())
            self._classes[app].update(labels[counted].tolist())

    def compute(self) -> float:
        return _mean([self._hits[app] / count for app, count in self._counts().items()])

    def further(self) -> dict[str, float]:
        counts = self._counts()
        if not counts:
            return {}
        each = {OF_ONE[app].name: self._hits[app] / count for app, count in counts.items()}
        most = [max(self._classes[app].values()) / count for app, count in counts.items()]
        return {**each, COMMONEST_CLASS.name: _mean(most)}

    def _counts(self) -> dict[int, int]:
        """The units that count of each application that has some."""
        counts = {app: sum(found.values()) for app, found in sorted(self._classes.items())}
        return {app: count for app, count in counts.items() if count}


def _mean(shares: list[float]) -> float:
    return sum(shares) / len(shares) if shares else float("nan")


def require_aligned(outputs: Tensor, y: Tensor) -> None:
    """Raise BenchError unless outputs (n, units, classes) and labels (n, 1 + units) agree."""
    if outputs.shape[:2] != y[:, 1:].shape:
        raise BenchError(
            f"outputs are of {outputs.shape[1]} units, and labels of {y.shape[1] - 1}: give one "
            "output for each unit"
        )


@register("task", "several-tasks")
class SeveralTasks(Task):
    """Outputs (n, units, classes), labels int64 (n, 1 + units): the application, then a class for
    each unit, -100 where there is none.

    A sample has as many units as its application's task decides: one class of an image, one answer
    to a question, a class for each word. Classes are those of its application, from 0; units and
    classes are as many as the application with most has. Inputs say in ``app`` whose a sample is,
    and in ``unit_mask``, int64 (n, units), which units count.
    """

    metric = MetricFacts("mean-accuracy", "mean accuracy of applications")
    further_metrics = (*OF_ONE, COMMONEST_CLASS)
    dense = True
    ignore = IGNORED

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        both = isinstance(y, Tensor) and y.ndim == 2 and y.shape[1] > 1
        require_classes(y[:, 1:] if both else y, (n, -1), classes, where, IGNORED)
        if not both:
            raise BenchError(
                f"{where} has labels of shape {tuple(y.shape)}: give the application and then a "
                "class for each unit"
            )
        low, high = int(y[:, 0].min()), int(y[:, 0].max())
        if low < 0 or high >= MOST:
            raise BenchError(
                f"{where} has labels of applications {low} to {high}; there may be {MOST}, "
                "numbered from 0"
            )

    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        if len(shape) != 3 or shape[0] != n or shape[2] != classes:
            cure = "return logits" if len(shape) != 2 else NOT_NUMBERS
            raise BenchError(
                f"not ({n}, *, {classes}) = (samples, units, classes), on {where}; {cure}"
            )

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Mean over the applications of the mean cross-entropy of their units."""
        require_aligned(outputs, y)
        return torch.stack([
            nn.functional.cross_entropy(
                outputs[rows].flatten(0, 1), y[rows, 1:].flatten(), ignore_index=IGNORED,
                label_smoothing=label_smoothing,
            )
            for _, rows in by_owner(y[:, 0])
        ]).mean()  # fmt: skip

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        return torch.stack([
            soft_cross_entropy(outputs[rows][mask], teacher[rows][mask])
            for _, rows in by_owner(owners(x))
            for mask in [x[UNITS][rows].bool()]
        ]).mean()  # fmt: skip

    def score(self) -> Score:
        return ApplicationsScore()

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        return outputs[x[UNITS].bool()]

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        return features[x[UNITS].bool()]

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        """Mean over the units of each sample; 0 where it has none."""
        mask = x[UNITS].unsqueeze(-1).to(features.dtype)
        return (features * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        return y[:, 1:][places[1]]

    def places(self, outputs: Tensor, x: Inputs) -> tuple[Tensor, Tensor]:
        """The application of each sample, and which units count, bool (n, units)."""
        return x[APP], x[UNITS].bool()

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        app, mask = places
        whole = torch.full(mask.shape, IGNORED, dtype=labels.dtype, device=labels.device)
        filled = whole.masked_scatter(mask, labels)
        return torch.cat([app.unsqueeze(1).to(labels.dtype), filled], dim=1)

    def present(self, y: Tensor) -> set[int]:
        return super().present(y[:, 1:])
