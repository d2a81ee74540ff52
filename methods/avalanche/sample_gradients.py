"""EWC and MAS whose importances come from the gradient of each sample, as in their papers.

A pass over one sample is like any other, so that a window counts two of a domain, and not all.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from avalanche.training.utils import zerolike_params_dict

from bench.run.window import Window

from .loop import UnitForward
from .memory import Samples
from .plugins import BatchedEWC, BatchedMAS, Loss, Turn


def mean_over_samples(
    model: torch.nn.Module,
    optimizer: Any,
    data: Samples,
    window: Window | None,
    loss: Loss,
    turn: Turn,
) -> dict[str, Any]:
    """As `plugins.mean_over_batches`, of batches of one sample; ``window``: counts the passes."""
    means = zerolike_params_dict(model)
    model.eval()
    for i in range(len(data)):
        x, y, _ = data.collate_fn([i])
        with nullcontext() if window is None else window.same_work(x):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            met = [(n, p.grad) for n, p in model.named_parameters() if p.grad is not None]
            sums = [means[name].data for name, _ in met]
            torch._foreach_add_(sums, turn([g for _, g in met]), alpha=1 / len(data))
    model.train()
    return means


class SampleEWC(BatchedEWC):
    """`BatchedEWC` with the mean of the samples' squared gradients."""

    window: Window | None = None

    def after_training_exp(self, strategy: Any, **settings: Any) -> None:
        self.window = strategy._window
        super().after_training_exp(strategy, **settings)
        self.window = None

    def compute_importances(
        self, model: Any, loss: Any, optimizer: Any, data: Any, *_: Any, **more: Any
    ) -> Any:
        """Of the loss over all classes seen so far, as `BatchedEWC`'s."""
        return mean_over_samples(
            model, optimizer, data, self.window, loss.of_seen, lambda g: torch._foreach_mul(g, g)
        )


class SampleMAS(BatchedMAS):
    """`BatchedMAS` with the mean of the samples' absolute gradients."""

    def _get_importance(self, strategy: Any) -> dict[str, Any]:
        return mean_over_samples(
            UnitForward(strategy.model.foundation),
            strategy.optimizer,
            strategy.experience.dataset,
            strategy._window,
            lambda units, _: units.pow(2).sum(dim=1).mean(),
            torch._foreach_abs,
        )
