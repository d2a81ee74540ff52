"""Source statistics: target features are moved to the stored moments of the source (CFA)."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench import (
    Batch,
    DomainView,
    FoundationModel,
    Method,
    MethodConfig,
    Window,
    register,
    tunable,
)

from ._batchnorm import Statistics, set_statistics
from ._losses import affine_parameters, at_least_float32, train_only


def bounded(features: Tensor) -> Tensor:
    """Features (n, width) normalized per sample (no scale, no shift) and squashed to (-1, 1)."""
    return torch.tanh(F.layer_norm(at_least_float32(features), features.shape[1:]))


def central_moments(hidden: Tensor, order: int) -> Tensor:
    """Mean and central moments 2 to ``order`` of each column of (n, width): (order, width)."""
    mean = hidden.mean(dim=0)
    centred = hidden - mean
    return torch.stack([mean, *((centred**k).mean(dim=0) for k in range(2, order + 1))])


def class_means(hidden: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean of each class, (classes, width), zero where a class is absent; and who is present."""
    member = F.one_hot(labels, classes).to(hidden.dtype)
    counts = member.sum(dim=0)
    return member.t() @ hidden / counts.clamp_min(1).unsqueeze(1), counts > 0


KEPT_BYTES = 64 * 2**20
"""Features of a source that are kept to compute its statistics at once; see `SourceFeatures`."""


class SourceFeatures:
    """Statistics of features that come in batches, in memory that is bounded.

    Up to `KEPT_BYTES` the features are kept. Of more, sums of their powers are, in double
    precision: features lie in (-1, 1), so that central moments follow from these.

    order : of the highest moment
    ignore : the label of units that are of no class, or None
    """

    def __init__(self, order: int, ignore: int | None) -> None:
        self._order, self._ignore = order, ignore
        self._kept: list[tuple[Tensor, Tensor]] = []
        self._kept_bytes = self._n = 0
        self._powers: Tensor | None = None

    def add(self, hidden: Tensor, labels: Tensor, classes: int) -> None:
        """Features (n, width) of units and their labels (n,), of so many classes."""
        self._kept.append((hidden, labels))
        self._kept_bytes += hidden.nbytes
        self._classes, self._like = classes, hidden
        if self._kept_bytes > KEPT_BYTES:
            self._fold()

    def statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """Moments (order, width), means of the classes (classes, width), and which there are."""
        if self._powers is None:
            hidden = torch.cat([hidden for hidden, _ in self._kept])
            labels = torch.cat([labels for _, labels in self._kept])
            counted = self._counted(hidden, labels)
            return central_moments(hidden, self._order), *class_means(*counted, self._classes)
        self._fold()
        raw = torch.cat([torch.ones_like(self._powers[:1]), self._powers / self._n])
        moments = [raw[1]]
        for k in range(2, self._order + 1):  # E(h - m)^k by the binomial theorem
            terms = [math.comb(k, j) * raw[j] * (-raw[1]) ** (k - j) for j in range(k + 1)]
            moments.append(torch.stack(terms).sum(dim=0))
        means = self._sums / self._counts.clamp_min(1).unsqueeze(1)
        kind = self._like.dtype
        return torch.stack(moments).to(kind), means.to(kind), self._counts > 0

    def _fold(self) -> None:
        """Add what is kept to the sums."""
        for hidden, labels in self._kept:
            exact = hidden.double()
            powers = torch.stack([(exact**k).sum(dim=0) for k in range(1, self._order + 1)])
            counted, of_class = self._counted(exact, labels)
            member = F.one_hot(of_class, self._classes).to(exact.dtype)
            sums, counts = member.t() @ counted, member.sum(dim=0)
            if self._powers is None:
                self._powers, self._sums, self._counts = powers, sums, counts
            else:
                self._powers, self._sums = self._powers + powers, self._sums + sums
                self._counts = self._counts + counts
            self._n += len(hidden)
        self._kept.clear()
        self._kept_bytes = 0

    def _counted(self, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self._ignore is None:
            return hidden, labels
        counted = labels != self._ignore
        return hidden[counted], labels[counted]


class SourceStatsConfig(MethodConfig):
    """Settings of CFA; the defaults are the authors'.

    ``learning_rate``: of SGD; ``momentum``: of SGD; ``clip_norm``: bound of the gradient's 2-norm;
    ``epochs``: passes over the adaptation split; ``moments``: highest order K that is matched;
    ``class_weight``: of the class-conditional part, 0 for the overall distribution alone;
    ``statistics``: ``batch``, the authors', lets BatchNorm layers normalize each target batch by
    itself, in predictions too; ``running`` predicts by running averages that follow the updates.
    """

    learning_rate: float = tunable(1e-3, 1e-4, 1e-1, log=True, ge=1e-8, le=10.0)
    momentum: float = Field(0.9, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0, le=1000.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, ge=1, le=100)
    moments: int = Field(3, ge=1, le=10)
    class_weight: float = tunable(1.0, 0.1, 10.0, log=True, ge=0, le=100.0)
    statistics: Statistics = "batch"


@register("method", "source-stats")
class SourceStats(Method):
    """Class-conditional feature alignment (CFA, Kojima et al., IJCAI 2022), without source data.

    ``prepare`` computes statistics of the source's features before the head: K moments of
    each column, and each class's mean. On the device the scale and shift of the
    normalization layers are trained so that a target batch has the same moments, and the samples
    predicted to be of a class the same mean as that class. Dropout is off. Moments are defined for
    a single sample too: above the first they are 0.
    """

    tasks = ("classification", "token-classification", "segmentation")
    Config = SourceStatsConfig
    config: SourceStatsConfig
    paper = (
        "Kojima, Matsuo, Iwasawa: Robustifying Vision Transformer without Retraining from Scratch "
        "by Test-Time Class-Conditional Feature Alignment, IJCAI 2022"
    )
    equation = (
        "min over norm layers: sum_k |M_k(T) - M_k(S)| / 2^k + w mean_c |m_c(T) - m_c(S)| / 2"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        c, parameters = self.config, train_only(model, affine_parameters(model))
        self.optimizer = torch.optim.SGD(parameters, lr=c.learning_rate, momentum=c.momentum)
        model.train(False)
        features = SourceFeatures(c.moments, model.rules.ignore)
        with torch.no_grad():
            for batch in source.batches(shuffle=False):
                features.add(*self._units(batch))
        self.moments, self.means, self.known = features.statistics()
        set_statistics(model, c.statistics)  # the source's features are made by its own

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train(False)
        for layer in self.model.module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()
        parameters = self.optimizer.param_groups[0]["params"]
        for batch in window.steps(domain.batches(self.config.epochs)):
            outputs, features = self.model.with_features(batch.x)
            logits = self.model.units(outputs, batch.x)
            hidden = bounded(self.model.unit_features(features, batch.x))
            overall = self.overall_loss(hidden)
            by_class = self.class_loss(hidden, logits.argmax(dim=1))
            loss = overall + self.config.class_weight * by_class
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
            self.optimizer.step()
            window.log(overall=overall.detach(), by_class=by_class.detach())

    def _units(self, batch: Batch) -> tuple[Tensor, Tensor, int]:
        """Bounded features and labels of a labelled batch's units, and the number of classes."""
        outputs, features = self.model.with_features(batch.x)
        labels = self.model.rules.unit_labels(batch.y, self.model.rules.places(outputs, batch.x))
        hidden = bounded(self.model.unit_features(features, batch.x))
        return hidden, labels, self.model.units(outputs, batch.x).shape[1]

    def overall_loss(self, hidden: Tensor) -> Tensor:
        """Central moment discrepancy to the source on [-1, 1], a scalar; ``hidden``: (n, width)."""
        difference = central_moments(hidden, self.config.moments) - self.moments
        distances = torch.linalg.vector_norm(difference, dim=1)
        return sum((d / 2.0**k for k, d in enumerate(distances, start=1)), distances.new_zeros(()))

    def class_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean distance to the source's class means over the classes in ``labels``, a scalar."""
        means, present = class_means(hidden, labels, len(self.means))
        distances = torch.linalg.vector_norm(means - self.means, dim=1) / 2.0
        present = present & self.known
        return (distances * present).sum() / present.sum().clamp_min(1)
