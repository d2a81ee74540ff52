"""Classification: one class for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score, Task
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.class_scores import CLASS_METRICS, ClassScore


@register("task", "classification")
class Classification(Task):
    """Outputs (n, classes), labels int64 (n,); the sample is the unit."""

    metric = MetricFacts("accuracy", "accuracy", of_samples=True)
    further_metrics: ClassVar[tuple[MetricFacts, ...]] = CLASS_METRICS

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        require_classes(y, (n,), classes, where)

    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        if shape != (n, classes):
            cure = "return logits" if shape not in ((n,), (n, 1)) else NOT_NUMBERS
            raise BenchError(f"not {(n, classes)} = (samples, classes), on {where}; {cure}")

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return nn.functional.cross_entropy(outputs, y, label_smoothing=label_smoothing)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        return soft_cross_entropy(outputs, teacher)

    def score(self) -> Score:
        return ClassScore()

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        return outputs

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        return features

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        return features

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        return y

    def places(self, outputs: Tensor, x: Inputs) -> Any:
        return None

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        return labels


NOT_NUMBERS = "return logits, not class numbers"


def require_classes(
    y: Any,
    shape: tuple[int, ...],
    classes: int,
    where: str,
    ignore: int | None = None,
    types: Sequence[torch.dtype] = (torch.int64,),
) -> None:
    """Raise BenchError unless ``y`` are class numbers of a shape; -1 in it stands for any size."""
    if not isinstance(y, Tensor) or y.dtype not in types:
        kind = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
        raise BenchError(f"{where} has labels of type {kind}; give class numbers as torch.int64")
    fits = len(y.shape) == len(shape) and all(
        want in (-1, found) for want, found in zip(shape, y.shape, strict=True)
    )
    if not fits:
        wanted = str(shape).replace("-1", "*")
        raise BenchError(f"{where} has labels of shape {tuple(y.shape)}, not {wanted}")
    counted = y if ignore is None else y[y != ignore]
    if not counted.numel():
        raise BenchError(f"{where} has no label that counts: all are {ignore}")
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= classes:
        but = "" if ignore is None else f", and {ignore} does not count"
        raise BenchError(
            f"{where} has labels from {low} to {high}; {classes} classes are numbered from 0 to "
            f"{classes - 1}{but}"
        )


def soft_cross_entropy(outputs: Tensor, teacher: Tensor) -> Tensor:
    """-sum_c p_c log q_c, mean over rows (units, classes), with p of the teacher; a scalar."""
    return -(teacher.softmax(dim=-1) * outputs.log_softmax(dim=-1)).sum(dim=-1).mean()
