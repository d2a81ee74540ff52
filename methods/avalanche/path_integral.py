"""Synaptic intelligence in Avalanche's loop: what a weight's path did for the loss."""

from __future__ import annotations

from . import without_wandb  # noqa: F401

# isort: split

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor
from torch.nn.utils import parameters_to_vector


class PathIntegral(SupervisedPlugin):
    """Synaptic intelligence over the flat vector of all parameters, in float32 or wider.

    ``importance`` is Omega, ``reference`` the weights after the last domain, ``path`` the running
    omega of the current one.
    """

    def __init__(self, penalty: float, damping: float) -> None:
        super().__init__()
        self.penalty, self.damping = penalty, damping
        self.importance = self.reference = self.path = torch.empty(0)
        self._before = self._gradient = torch.empty(0)

    def start(self, model: torch.nn.Module) -> None:
        """Anchor at the weights as they are, with nothing important yet."""
        self.reference = self._weights(model)
        self.importance = torch.zeros_like(self.reference)
        self.path = torch.zeros_like(self.reference)

    def before_backward(self, strategy: Any, **_: Any) -> None:
        weights = parameters_to_vector(strategy.model.parameters())
        penalty = (self.importance * (weights - self.reference).pow(2)).sum()
        strategy.loss = strategy.loss + self.penalty * penalty

    @torch.no_grad()
    def before_update(self, strategy: Any, **_: Any) -> None:
        """Note the weights and the gradient of the task loss alone."""
        parameters = strategy.model.parameters()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        self._before = self._weights(strategy.model)
        pull = 2 * self.penalty * self.importance * (self._before - self.reference)
        self._gradient = parameters_to_vector(gradients) - pull

    @torch.no_grad()
    def after_update(self, strategy: Any, **_: Any) -> None:
        self.path -= self._gradient * (self._weights(strategy.model) - self._before)
        self._before = self._gradient = torch.empty(0)

    @torch.no_grad()
    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        weights = self._weights(strategy.model)
        gained = self.path / ((weights - self.reference).pow(2) + self.damping)
        self.importance = (self.importance + gained).clamp_min(0)
        self.reference = weights
        self.path.zero_()

    @staticmethod
    def _weights(model: torch.nn.Module) -> Tensor:
        flat = parameters_to_vector([p.detach() for p in model.parameters()])
        return flat.to(torch.promote_types(flat.dtype, torch.float32))
