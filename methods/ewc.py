"""EWC: a quadratic penalty that keeps weights that mattered on earlier domains."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from bench import FoundationModel, Method, MethodConfig, register
from bench.batch import DomainView
from bench.window import Window


class EwcConfig(MethodConfig):
    """Settings of EWC.

    ``penalty``: lambda; ``mode``: ``online`` keeps one sum of importances and the
    latest weights (memory does not grow), ``separate`` one penalty for each earlier domain as in
    the paper; ``decay``: factor on old importances in online mode; ``learning_rate``: of AdamW;
    ``epochs``: passes over the adaptation split.
    """

    penalty: float = Field(100.0, ge=0)
    mode: Literal["online", "separate"] = "online"
    decay: float = Field(1.0, ge=0, le=1)
    learning_rate: float = Field(3e-4, gt=0, le=1.0)
    epochs: int = Field(3, ge=1, le=100)


@register("method", "ewc")
class Ewc(Method):
    """Elastic weight consolidation (Kirkpatrick et al., PNAS 2017), Avalanche's strategy.

    Supervised fine-tuning with the penalty lambda sum_i F_i (w_i - w*_i)^2, where F is
    the diagonal Fisher information, estimated from squared gradients: on the source in
    ``prepare``, and on each domain after it was learned (charged to the device).
    """

    Config = EwcConfig
    family = "CL"
    needs = ("target_labels",)
    provenance = "published"
    paper = "Kirkpatrick et al.: Overcoming catastrophic forgetting in neural networks, PNAS 2017"
    preload = ("avalanche.training",)

    config: EwcConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        from avalanche.training.templates import SupervisedTemplate

        from bench.methods.avalanche import WindowPlugin, silent
        from bench.methods.avalanche_ewc import SlicedEWC

        self.model = model
        self.optimiser = torch.optim.AdamW(model.module.parameters(), lr=self.config.learning_rate)
        online = self.config.mode == "online"
        decay = self.config.decay if online else None
        self.ewc = SlicedEWC(self.config.penalty, mode=self.config.mode, decay_factor=decay)
        self.plugin = WindowPlugin()
        self.strategy = SupervisedTemplate(
            model=model.module,
            optimizer=self.optimiser,
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=source.batch_size,
            train_epochs=self.config.epochs,
            plugins=[self.plugin, self.ewc],
            evaluator=silent(),
        )
        self.ewc.remember_source(self.strategy, source)

    def adapt(self, domain: DomainView, window: Window) -> None:
        from bench.methods.avalanche import train_within

        self.ewc.domain = domain
        train_within(self.strategy, self.plugin, domain, window)

    def stored(self) -> Any:
        return [self.model, self.optimiser, self.ewc.saved_params, self.ewc.importances]
