"""Avalanche's EWC plugin, reading a domain batch by batch and starting from the source."""

from __future__ import annotations

from typing import Any

from avalanche.training.plugins import EWCPlugin
from avalanche.training.utils import copy_params_dict

from bench.batch import DomainView
from bench.methods.avalanche import SlicedDomain


class SlicedEWC(EWCPlugin):
    """EWC whose importances are computed on ``domain``, in whole batches.

    The penalty, the importances and their accumulation are Avalanche's.
    """

    domain: DomainView

    def compute_importances(
        self, model: Any, criterion: Any, optimizer: Any, dataset: Any, *more: Any, **settings: Any
    ) -> Any:
        """Mean over batches of the squared gradient of the loss, for each parameter."""
        sliced = SlicedDomain(self.domain)
        return super().compute_importances(model, criterion, optimizer, sliced, *more, **settings)

    def remember_source(self, strategy: Any, source: DomainView) -> None:
        """Count the source as the experience before the first: its weights are protected too."""
        self.domain = source
        importances = self.compute_importances(
            strategy.model,
            strategy._criterion,
            strategy.optimizer,
            None,
            strategy.device,
            source.batch_size,
        )
        self.update_importances(importances, 0)
        self.saved_params[0] = copy_params_dict(strategy.model)
        strategy.optimizer.zero_grad()
        strategy.clock.train_exp_counter = 1
