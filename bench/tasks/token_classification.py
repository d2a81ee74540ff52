"""Token classification: a class for each word or token of a text, as its part of speech."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score, Task
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.class_scores import CLASS_METRICS, ClassScore
from bench.tasks.classification import NOT_NUMBERS, require_classes, soft_cross_entropy

IGNORED = -100


class TokenScore(ClassScore):
    """Metrics of all labelled tokens."""

    def __init__(self) -> None:
        super().__init__(IGNORED)

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, tokens, classes); ``y``: (n, tokens)."""
        require_aligned(outputs, y)
        super().update(outputs.flatten(0, 1), y.flatten())


def require_aligned(outputs: Tensor, y: Tensor) -> None:
    """Raise BenchError unless outputs (n, tokens, classes) and labels (n, tokens) agree."""
    if outputs.shape[:2] != y.shape:
        raise BenchError(
            f"outputs are of {outputs.shape[1]} tokens, and labels of {y.shape[1]}: give one "
            "output for each token of the inputs"
        )


@register("task", "token-classification")
class TokenClassification(Task):
    """Outputs (n, tokens, classes), labels int64 (n, tokens) with -100 where there is none.

    Units are the tokens that the inputs' ``unit_mask`` names, or their ``attention_mask`` where
    there is no other: padding is no decision. The labels of a batch are not needed for that.
    """

    metric = MetricFacts("token-accuracy", "token accuracy")
    further_metrics: ClassVar[tuple[MetricFacts, ...]] = CLASS_METRICS
    dense = True
    ignore = IGNORED

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        require_classes(y, (n, -1), classes, where, IGNORED)

    def require_outputs(self, shape: tuple[int, ...], n: int, classes: int, where: str) -> None:
        if len(shape) != 3 or shape[0] != n or shape[2] != classes:
            cure = "return logits" if len(shape) != 2 else NOT_NUMBERS
            raise BenchError(
                f"not ({n}, *, {classes}) = (samples, tokens, classes), on {where}; {cure}"
            )

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        return nn.functional.cross_entropy(
            outputs.flatten(0, 1), y.flatten(), ignore_index=IGNORED,
            label_smoothing=label_smoothing,
        )  # fmt: skip

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        return soft_cross_entropy(self.units(outputs, x), self.units(teacher, x))

    def score(self) -> Score:
        return TokenScore()

    def units(self, outputs: Tensor, x: Inputs) -> Tensor:
        return outputs[self.places(outputs, x)]

    def unit_features(self, features: Tensor, x: Inputs) -> Tensor:
        return features[self.places(features, x)]

    def pooled(self, features: Tensor, x: Inputs) -> Tensor:
        """Mean over the units of each sample; 0 where it has none."""
        mask = self.places(features, x).unsqueeze(-1).to(features.dtype)
        return (features * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        return y[places]

    def places(self, outputs: Tensor, x: Inputs) -> Tensor:
        """Which tokens are units, bool (n, tokens)."""
        if isinstance(x, dict):
            for name in ("unit_mask", "attention_mask"):
                if name in x:
                    return x[name].bool()
        return torch.ones(outputs.shape[:2], dtype=torch.bool, device=outputs.device)

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        whole = torch.full(places.shape, IGNORED, dtype=labels.dtype, device=labels.device)
        return whole.masked_scatter(places, labels)
