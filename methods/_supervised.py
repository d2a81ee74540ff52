"""The training loop of the supervised methods that do nothing against forgetting."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, tunable

from ._losses import take_step, train_only


class SupervisedConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the adaptation split."""

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


class SupervisedMethod(Method):
    """Cross-entropy on the target's labels with AdamW over the weights that `trained` names."""

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering", "generation",
    )  # fmt: skip
    family = "PEFT"
    shifts = ("domain", "class")
    needs = ("target_labels",)
    Config = SupervisedConfig
    config: SupervisedConfig

    def trained(self, model: FoundationModel) -> list[nn.Parameter]:
        """The parameters to train; by default all."""
        return list(model.module.parameters())

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.train_only(self.trained(model))

    def train_only(self, parameters: list[nn.Parameter]) -> None:
        """Freeze the model but for these, and give them a new optimizer."""
        self.optimizer = torch.optim.AdamW(
            train_only(self.model, parameters), lr=self.config.learning_rate
        )

    def set_mode(self) -> None:
        """Put the model into the mode in which it is trained."""
        self.model.train()

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.set_mode()
        for batch in window.steps(domain.batches(self.config.epochs)):
            loss = self.model.loss(self.model(batch.x), batch.y)
            take_step(self.optimizer, loss)
            window.log(loss=loss.detach())
