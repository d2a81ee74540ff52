"""Pseudo-labels: cross-entropy to the model's own confident hard predictions."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, tunable

from ._batchnorm import Statistics, set_statistics
from ._losses import affine_parameters, at_least_float32, take_step, train_only


class PseudoLabelConfig(MethodConfig):
    """Settings of pseudo-labelling.

    ``learning_rate``: of Adam; ``epochs``: passes over the adaptation split; ``threshold``: least
    probability of a label that is learned, 0.9 in T3A's comparison; 0 learns all, as Lee does.
    A model trained with label smoothing s on C classes reaches about 1 - s + s/C (0.91 for 0.1
    and 10) where it is right. ``trained``: the normalization layers' scale and shift, as test-time
    suites do, or all weights, as Lee does; ``statistics``: as for Tent, ``batch`` in test-time
    suites, ``running`` predicts by running averages of BatchNorm layers.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    threshold: float = tunable(0.9, 0.0, 0.99, le=1.0)
    trained: Literal["normalisation", "all"] = "normalisation"
    statistics: Statistics = "batch"


@register("method", "pseudo-label")
class PseudoLabel(Method):
    """Pseudo-labelling (Lee, ICML workshop 2013) in its test-time form.

    The labels are the model's own in the same pass, taken where it is confident enough; a batch
    without such a sample changes no weight. There is no labelled loss in addition: the source is
    not at hand.
    """

    tasks = ("classification", "token-classification", "segmentation", "visual-question-answering")
    Config = PseudoLabelConfig
    config: PseudoLabelConfig
    paper = (
        "Lee: Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep "
        "Neural Networks, ICML workshop 2013"
    )
    equation = (
        "min over the trained weights: mean over i with max_c p_ic > threshold of -log max_c p_ic"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        set_statistics(model, self.config.statistics)
        every = self.config.trained == "all"
        trained = list(model.module.parameters()) if every else affine_parameters(model)
        parameters = train_only(model, trained)
        self.optimizer = torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs), data_dependent=True):
            logits = at_least_float32(self.model.units(self.model(batch.x), batch.x))
            confidence, labels = logits.detach().softmax(dim=1).max(dim=1)
            confident = confidence > self.config.threshold
            window.declare(sum(confident.tolist()))
            window.log(confident=confident.float().mean())
            if not confident.any():
                continue
            loss = F.cross_entropy(logits[confident], labels[confident])
            take_step(self.optimizer, loss)
            window.log(loss=loss.detach())
