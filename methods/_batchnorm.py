"""Which statistics BatchNorm layers normalize by: the batch's own, or running averages."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench import FoundationModel

Statistics = Literal["batch", "running"]
"""``batch``: of the batch, in updates and in predictions; ``running``: of the batch in updates,
whose running averages (momentum as the layer has it) serve predictions. Of BatchNorm alone."""


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    return [layer for layer in layers if layer.running_mean is not None]


class _OwnStatistics:
    """Hooks around a layer's forward pass that put the batch's statistics in place of the source's.

    The layer's running statistics stay those of the source, and no pass changes them.
    """

    def __init__(self, prior: float) -> None:
        self.prior = prior

    def before(self, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        """Take the source's statistics away, or mix them with the batch's."""
        x = inputs[0]
        mean, variance = layer.running_mean, layer.running_var
        assert mean is not None
        assert variance is not None
        held: Any = (mean, variance, layer.training)
        object.__setattr__(layer, "_of_source", held)
        layer.training = False  # no pass counts, none moves the averages
        if self.prior:
            share = len(x) / (len(x) + self.prior)
            of_batch = torch.var_mean(x.detach(), [0, *range(2, x.ndim)], correction=0)
            layer.running_mean = torch.lerp(mean, of_batch[1].to(mean.dtype), share)
            layer.running_var = torch.lerp(variance, of_batch[0].to(variance.dtype), share)
        elif len(x) > 1:
            layer.running_mean = layer.running_var = None

    def after(self, layer: _BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Put the source's statistics back."""
        held: Any = layer.__dict__.pop("_of_source")
        layer.running_mean, layer.running_var, layer.training = held


def use_batch_statistics(model: FoundationModel, prior: float = 0.0) -> None:
    """From now on each batch is normalized by its own statistics, in predictions too.

    A batch of one sample, too few for statistics, is normalized by the source's. ``prior`` N > 0
    mixes both, N / (N + n) of the source's with n / (N + n) of a batch of n samples (Schneider et
    al., 2020), for predictions only: no gradient flows through mixed statistics. Networks without
    BatchNorm stay as they are.
    """
    hooks = _OwnStatistics(prior)
    for layer in batch_norms(model.module):
        layer.register_forward_pre_hook(hooks.before)
        layer.register_forward_hook(hooks.after, always_call=True)


def set_statistics(model: FoundationModel, statistics: Statistics) -> None:
    """Let the BatchNorm layers normalize by these statistics from now on."""
    if statistics == "batch":
        use_batch_statistics(model)
