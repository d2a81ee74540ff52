"""Visual question answering: one of many answers, of which several may be right in part."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs
from bench.contracts.task import MetricFacts, Score
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.class_scores import COMMONEST_CLASS
from bench.tasks.classification import Classification


class AnswerScore(Score):
    """Mean over questions of the score that the answer with the highest logit has.

    ``commonest-class``: that of the one answer that has most of it over all questions.
    """

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self._of_answer: Tensor | float = 0.0

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs`` and ``y``: (n, answers)."""
        chosen = outputs.argmax(dim=1, keepdim=True)
        self.total += float(y.gather(1, chosen).double().sum())
        self.count += len(y)
        self._of_answer = self._of_answer + y.double().sum(dim=0).cpu()

    def compute(self) -> float:
        return self.total / self.count if self.count else float("nan")

    def further(self) -> dict[str, float]:
        if not isinstance(self._of_answer, Tensor):
            return {}
        return {COMMONEST_CLASS.name: float(self._of_answer.max()) / self.count}


@register("task", "visual-question-answering")
class VisualQuestionAnswering(Classification):
    """Outputs (n, answers), labels float32 (n, answers): the score of each answer, in [0, 1].

    The loss is the binary cross-entropy of each answer, times their number, as is usual (Kim et
    al., ICML 2021). For methods a question is one decision among the answers: the softmax over
    them, although the loss treats answers one by one.
    """

    metric = MetricFacts("vqa-score", "VQA score", of_samples=True)
    further_metrics = (COMMONEST_CLASS,)

    def require_labels(self, y: Any, n: int, classes: int, where: str) -> None:
        if not isinstance(y, Tensor) or y.dtype != torch.float32:
            kind = str(y.dtype) if isinstance(y, Tensor) else type(y).__name__
            raise BenchError(f"{where} has labels of type {kind}; give scores as torch.float32")
        if tuple(y.shape) != (n, classes):
            raise BenchError(
                f"{where} has labels of shape {tuple(y.shape)}, not {(n, classes)} = "
                "(questions, answers)"
            )
        if not ((y >= 0) & (y <= 1)).all():
            raise BenchError(
                f"{where} has scores from {float(y.min()):g} to {float(y.max()):g}, not in [0, 1]"
            )

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """Label smoothing has no meaning for scores, and does nothing."""
        return y.shape[1] * nn.functional.binary_cross_entropy_with_logits(outputs, y)

    def distillation_loss(self, outputs: Tensor, teacher: Tensor, x: Inputs) -> Tensor:
        return self.loss(outputs, teacher.sigmoid())

    def score(self) -> Score:
        return AnswerScore()

    def unit_labels(self, y: Tensor, places: Any) -> Tensor:
        return y.argmax(dim=1)

    def places(self, outputs: Tensor, x: Inputs) -> Any:
        """The number of answers."""
        return outputs.shape[1]

    def packed(self, labels: Tensor, places: Any) -> Tensor:
        return nn.functional.one_hot(labels, places).float()

    def present(self, y: Tensor) -> set[int]:
        return set(np.flatnonzero((y.cpu().numpy() > 0).any(axis=0)).tolist())
