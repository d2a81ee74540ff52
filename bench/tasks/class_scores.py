"""The metrics of tasks whose units have one class each: accuracy, macro-F1, calibration error.

Numbers equal scikit-learn's ``f1_score`` and torchmetrics' ``MulticlassCalibrationError``, but for
confidences of exactly 1, which are of the last bin here and have one of their own there. Neither is
imported, because that takes seconds in every process.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts.task import MetricFacts, Score

BINS = 15
"""Of the calibration error, as in Guo et al., ICML 2017."""

MACRO_F1 = MetricFacts("macro-f1", "macro-F1")
CALIBRATION_ERROR = MetricFacts("calibration-error", "calibration error", higher_is_better=False)
COMMONEST_CLASS = MetricFacts("commonest-class", "commonest class")
"""The task's metric, had the class that is most frequent in the split's labels been the answer to
everything: what a model that has learnt nothing but this class would have."""
CLASS_METRICS = (MACRO_F1, CALIBRATION_ERROR, COMMONEST_CLASS)


class ClassScore(Score):
    """The share of labels that the highest logit meets, and what else is known of classes.

    ``macro-f1``: the mean F1 of the classes that labels or predictions name. ``calibration-error``:
    the expected calibration error, the mean of |accuracy - confidence| over bins of the highest
    probability, weighted by their units (Naeini et al., AAAI 2015). ``commonest-class``: the share
    of the most frequent label.
    """

    def __init__(self, ignore: int | None = None) -> None:
        self._ignore = ignore
        self.hits = self.count = 0
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, classes); ``y``: (n,)."""
        if self._ignore is not None:
            counted = y != self._ignore
            outputs, y = outputs[counted], y[counted]
        confidence = outputs.float().softmax(dim=1).amax(dim=1)
        chosen = outputs.argmax(dim=1)
        self.hits += int((chosen == y).sum())
        self.count += len(y)
        self._seen.append((confidence, chosen, y))

    def compute(self) -> float:
        return self.hits / self.count if self.count else float("nan")

    def further(self) -> dict[str, float]:
        if not self.count:
            return {}
        confidence, chosen, y = (torch.cat(part).numpy() for part in zip(*self._seen, strict=True))
        return {
            MACRO_F1.name: _macro_f1(chosen, y),
            CALIBRATION_ERROR.name: _calibration_error(confidence.astype(float), chosen == y),
            COMMONEST_CLASS.name: float(np.bincount(y).max() / len(y)),
        }


def _macro_f1(chosen: NDArray[np.int64], y: NDArray[np.int64]) -> float:
    size = int(max(chosen.max(), y.max())) + 1
    met = np.bincount(y[chosen == y], minlength=size)
    named = np.bincount(chosen, minlength=size) + np.bincount(y, minlength=size)
    return float((2 * met[named > 0] / named[named > 0]).mean())


def _calibration_error(confidence: NDArray[np.float64], met: NDArray[np.bool_]) -> float:
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    away = np.bincount(bins, weights=met - confidence, minlength=BINS)
    return float(np.abs(away).sum() / len(met))
