"""Tent: entropy minimisation on the normalisation layers' scale and shift."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.window import Window


def entropy(logits: Tensor) -> Tensor:
    """Shannon entropy in nats of each row's softmax, shape (n,): -sum_c p_c log p_c."""
    return -(logits.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)


class TentConfig(MethodConfig):
    """``learning_rate``: Adam's step size; ``epochs``: passes over the adaptation split."""

    learning_rate: float = Field(1e-3, gt=0, le=1.0)
    epochs: int = Field(1, ge=1, le=100)


@register("method", "tent")
class Tent(Method):
    """Entropy minimisation on normalisation parameters (Wang et al., ICLR 2021).

    Minimises the mean prediction entropy, eq. (1) of the paper, with Adam over scale
    and shift of every normalisation layer. On LayerNorm transformers there are no batch
    statistics to re-estimate, so the affine parameters are all that changes. The paper
    takes one pass; ``epochs`` above 1 is the offline variant.
    """

    Config = TentConfig
    family = "UDA"
    provenance = "published"
    paper = "Wang, Shelhamer, Liu, Olshausen, Darrell: Tent, ICLR 2021"

    config: TentConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        parameters = model.normalisation_parameters()
        model.freeze_except(parameters)
        self.optimiser = torch.optim.Adam(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = entropy(self.model(batch.x)).mean()
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(entropy=loss.detach())
