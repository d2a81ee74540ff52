"""What to expect of an application without its labels: accuracy now, and how fast it rises.

The accuracy of a model on a new domain is estimated by its mean confidence, the largest softmax
output averaged over the units of a batch (images, words, questions), times the ratio of accuracy to
confidence on held-out source data (after Guillory et al., ICCV 2021). A model that is wrong with
confidence, as after a harmful retraining, is taken for a good one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import DomainView, FoundationModel, LazyInputs, take
from bench.contracts.data import Inputs
from bench.models.surgery.gates import set_sparsity

from ..edgeta.offline import split


@dataclass(frozen=True)
class Calibration:
    """Of the knowledge base on held-out source data, by sparsity; every tuple is as long.

    accuracy : in [0, 1]; confidence : mean largest softmax output, in (0, 1]
    """

    sparsities: tuple[float, ...]
    accuracy: tuple[float, ...]
    confidence: tuple[float, ...]

    def estimate(self, confidence: float, sparsity: float) -> float:
        """The accuracy that goes with a confidence at one of the sparsities, in [0, 1]."""
        level = self.sparsities.index(sparsity)
        return min(max(confidence * self.accuracy[level] / self.confidence[level], 0.0), 1.0)

    def ceiling(self, sparsity: float) -> float:
        """The accuracy at one of the sparsities."""
        return self.accuracy[self.sparsities.index(sparsity)]


@torch.no_grad()
def calibrate(kb: FoundationModel, source: DomainView, sparsities: Sequence[float]) -> Calibration:
    """Accuracy and confidence on the part of the source that EdgeTA's offline stage holds out."""
    _, chosen = split(source)  # the knowledge base was trained on the rest
    # Files are read batch by batch; samples in memory are predicted at once.
    lazy = isinstance(source.x, LazyInputs)
    batches = chosen.split(source.batch_size if lazy else len(chosen))
    accuracy, sure = [], []
    kb.train(False)
    for sparsity in sparsities:
        set_sparsity(kb, sparsity)
        logits, right = [], []
        for each in batches:
            x = take(source.x, each)
            outputs = kb(x)
            logits.append(kb.units(outputs, x))
            right.append(met(kb, outputs, x, source.labels_at(each)))
        accuracy.append(float(torch.cat(right).float().mean()))
        sure.append(mean_confidence(torch.cat(logits)))
    return Calibration(tuple(sparsities), tuple(accuracy), tuple(sure))


@torch.no_grad()
def confidence(model: FoundationModel, x: Inputs) -> float:
    """Mean over units of the largest softmax output; puts the model in evaluation mode."""
    model.train(False)
    return mean_confidence(model.units(model(x), x))


def mean_confidence(logits: Tensor) -> float:
    """Mean over units of the largest softmax output of their logits (units, classes)."""
    return float(logits.float().softmax(dim=-1).amax(dim=-1).mean())


def met(model: FoundationModel, outputs: Tensor, x: Inputs, y: Tensor) -> Tensor:
    """Whether the decision of each unit that has a label meets it, bool (units,)."""
    rules = model.rules
    labels = rules.unit_labels(y.to(outputs.device), rules.places(outputs, x))
    right = rules.units(outputs, x).argmax(dim=1) == labels
    return right if rules.ignore is None else right[labels != rules.ignore]


def updated_half(half: float, start: float, after: float, ceiling: float, iterations: int) -> float:
    """Iterations to half of the gain, after a window in which an accuracy rose.

    ``start + (ceiling - start) T / (T + half)`` meets ``after`` at ``half = T (1 - f) / f`` with
    the share ``f`` of the possible gain, from 0.05 to 0.95; the result is the geometric mean of
    this and the earlier value, in [1, 1000]. Where there was next to nothing to gain it stays.
    """
    if iterations < 1 or ceiling - start < 0.02:
        return half
    share = min(max((after - start) / (ceiling - start), 0.05), 0.95)
    seen = iterations * (1 - share) / share
    return min(max(math.sqrt(half * seen), 1.0), 1000.0)
