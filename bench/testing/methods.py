"""Two small methods: one counts what it is given, one learns from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.contracts.data import DomainView
from bench.contracts.method import Method, MethodConfig, tunable
from bench.contracts.model import FoundationModel
from bench.run.window import Window


class CountingMethod(Method):
    """Changes nothing and remembers the samples of each step.

    Attributes
    ----------
    given : (name of the domain, positions of the samples in their view) of every step
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config or self.Config())
        self.given: list[tuple[str, list[int]]] = []

    def adapt(self, domain: DomainView, window: Window) -> None:
        for batch in window.steps(domain.batches()):
            self.given.append((domain.name, batch.sample_ids.tolist()))


class LearningConfig(MethodConfig):
    """Settings of `LearningMethod`."""

    learning_rate: float = tunable(0.1, 1e-3, 1.0, log=True)
    epochs: int = tunable(1, 1, 5, ge=1, le=100)


class LearningMethod(Method):
    """One step of gradient descent a batch, on its labels or else on the model's own decisions."""

    Config = LearningConfig

    def __init__(self, config: Any = None) -> None:
        super().__init__(config or self.Config())

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.optimizer = torch.optim.SGD(model.module.parameters(), self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs)):
            outputs = self.model(batch.x)
            y = batch.y if domain.labelled else outputs.detach().argmax(dim=1)
            loss = nn.functional.cross_entropy(outputs, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            window.log(loss=loss)
