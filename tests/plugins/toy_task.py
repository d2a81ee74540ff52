"""A task in one file: several labels for each sample, as genres of a film, with ``--plugin``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError, Classification, MetricFacts, Score, register


class HammingScore(Score):
    """The share of labels, of all samples and classes, that are said rightly."""

    def __init__(self) -> None:
        self.right = self.count = 0

    def update(self, outputs: Tensor, y: Tensor) -> None:
        self.right += int(((outputs > 0) == (y > 0.5)).sum())
        self.count += y.numel()

    def compute(self) -> float:
        return self.right / self.count if self.count else float("nan")


@register("task", "multi-label")
class MultiLabel(Classification):
    """Outputs (n, classes), labels float32 (n, classes) of 0 and 1; the sample is the unit."""

    metric = MetricFacts("hamming-score", "Hamming score", of_samples=True)

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        shape = tuple(getattr(y, "shape", ()))
        if shape != (n, classes) or not torch.isin(y, torch.tensor([0.0, 1.0])).all():
            raise BenchError(f"{where} has labels {shape}, not 0 and 1 of {(n, classes)}")

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs, y)

    def score(self) -> Score:
        return HammingScore()
