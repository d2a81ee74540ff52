"""NEO: the mean of the target's features is moved to the origin; nothing is trained."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import FoundationModel, Method, MethodConfig, Unsupported, Window, choice, register
from bench.contracts.data import DomainView, Inputs

from ._losses import at_least_float32


class NeoConfig(MethodConfig):
    """``centroid``: ``cumulative``, of all samples since the start or the last reset, the paper's
    for one shift; ``moving``, its continual variant, follows batches with the rate ``alpha``.
    """

    centroid: Literal["cumulative", "moving"] = choice("cumulative", "moving")
    alpha: float = Field(0.1, gt=0, le=1)


@register("method", "neo")
class Neo(Method):
    """No-optimization adaptation by latent re-centering (Murphy et al., ICLR 2026).

    A shift of the inputs moves all features alike, and source features have their mean near the
    origin: so the mean m of the target's features is taken away before the classifier. It costs one
    forward pass of what arrives. The authors' layer updates m in each prediction; here m is of
    the arrived samples and fixed while predicting, so that test samples teach nothing.
    """

    Config = NeoConfig
    config: NeoConfig
    paper = (
        "Murphy, Danilowski, Chatterjee, Ghosh: NEO: No-Optimization Test-Time Adaptation through "
        "Latent Re-Centering, ICLR 2026"
    )
    equation = "logits = W (f - m) + b, m = mean feature of the target samples so far"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        if not isinstance(model.head, nn.Linear):
            raise Unsupported(
                f"neo moves the input of a linear head, and that of {type(model).__name__} is "
                f"{type(model.head).__name__}; use lame"
            )
        self.model = model
        self.seen = 0
        self.centroid = torch.zeros_like(at_least_float32(model.head.weight[0].detach()))

    @torch.no_grad()
    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train(False)
        for batch in window.steps(domain.batches()):
            _, features = self.model.with_features(batch.x)
            mean = at_least_float32(features).mean(dim=0)
            self.seen += len(features)
            cumulative = self.config.centroid == "cumulative"
            rate = len(features) / self.seen if cumulative else self.config.alpha
            self.centroid = (1 - rate) * self.centroid + rate * mean

    def predict(self, x: Inputs) -> Tensor:
        self.model.train(False)
        _, features = self.model.with_features(x)
        logits: Tensor = self.model.head((features - self.centroid).to(features.dtype))
        return logits
