"""Supervised fine-tuning of all weights on the target's labels: the upper bound."""

from __future__ import annotations

import torch

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.method import tunable
from bench.window import Window


class FineTuneConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the adaptation split."""

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


@register("method", "fine-tune")
class FineTune(Method):
    """Supervised upper bound: cross-entropy on target labels, all weights, AdamW.

    Also the naive baseline of continual learning: nothing protects earlier domains.
    """

    Config = FineTuneConfig
    family = "reference"
    shifts = ("domain", "class")
    protocols = ("periodic", "online")
    needs = ("target_labels",)
    provenance = "chosen-here"
    paper = "none: the supervised reference of domain-adaptation studies"
    equation = "min over all weights: CE(target)"

    config: FineTuneConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.optimiser = torch.optim.AdamW(model.module.parameters(), lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = self.model.loss(self.model(batch.x), batch.y)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
            window.log(loss=loss.detach())
