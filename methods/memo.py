"""MEMO: each test point alone adapts the source model, by the entropy of its mean over views."""

from __future__ import annotations

import math
import zlib
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from bench import (
    DomainView,
    FoundationModel,
    Method,
    MethodConfig,
    Unsupported,
    choice,
    register,
    take,
    tunable,
)
from bench.contracts.data import Inputs, uncounted

from ._augmix import AugMix, Crop
from ._batchnorm import _OwnStatistics, batch_norms
from ._losses import at_least_float32
from ._teacher import RandomViews, make_views

WEIGHT_DECAY = 0.01
"""Of AdamW, as published and as torch has it."""


def marginal_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of the mean of the softmax over views, a scalar; logits (views, classes)."""
    views = at_least_float32(logits).log_softmax(dim=1)
    mean = views.logsumexp(dim=0) - math.log(len(views))
    return -(mean.exp() * mean).sum()


class MemoConfig(MethodConfig):
    """Settings of MEMO; defaults are the authors' for CIFAR-10.

    ``learning_rate``: of the one step that a test point takes; ``optimizer``: ``sgd`` without
    momentum, or ``adamw`` (weight decay 0.01), new for each point; ``views``: B, of a point. For
    ImageNet the authors take 64 views, ``crop: resized``, a rate of 2.5e-4 for ResNet-50 and AdamW
    with 1e-5 for the transformer. ``prior``: N, source samples that the source's statistics of
    BatchNorm layers count as beside a test point, 16 in the paper (the released program has the
    setting but leaves BatchNorm as it is, which is a large N); ``crop``, ``severity``: of the
    views, see `AugMix`; ``horizontal_flip``: of half of them, as the authors do; off because it
    changes what a digit or a letter means.
    """

    learning_rate: float = tunable(5e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    optimizer: Literal["sgd", "adamw"] = choice("sgd", "adamw")
    views: int = Field(32, ge=1, le=1024)
    prior: int = Field(16, ge=0, le=1_000_000)
    crop: Crop = "padded"
    horizontal_flip: bool = False
    severity: int = Field(1, ge=1, le=10)


@register("method", "memo")
class Memo(Method):
    """Marginal entropy minimization with one test point (Zhang et al., NeurIPS 2022).

    Each test point is a world of its own: the source model takes one step on all its weights, down
    the entropy of its mean prediction over AugMix views of the point, predicts the point as it is,
    and is the source model again. So nothing is learned, adaptation costs nothing, and predictions
    cost hundreds of times those of the source model: B forward and backward passes and one more
    forward pass. The step is made on a copy, which is in memory while predicting. What is drawn
    depends on the run's seed and the point alone, not on its batch. Images alone have such views.
    """

    Config = MemoConfig
    config: MemoConfig
    preload = ("torchvision.transforms.v2",)
    paper = (
        "Zhang, Levine, Finn: MEMO: Test Time Robustness via Adaptation and Augmentation, "
        "NeurIPS 2022"
    )
    equation = "for each x: one step on all weights down H(mean_b p(. | a_b(x))), then predict x"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        sample = take(source.x, torch.arange(1))
        if not isinstance(sample, Tensor) or sample.ndim != 4 or sample.shape[1] not in (1, 3):
            raise Unsupported(
                "memo needs AugMix views of images of shape (1 or 3, height, width), and samples "
                "here are none; use a method without augmentations, such as tent or eata"
            )
        views = make_views(source, False, 1.0, False, self.registered_name)
        assert isinstance(views, RandomViews)
        c = self.config
        high = views.low + views.span
        self.augmix = AugMix(views.low, high, c.crop, c.horizontal_flip, c.severity)
        self.seed = torch.initial_seed()
        self.model = model
        statistics = _PointStatistics(c.prior)
        for layer in batch_norms(model.module):
            layer.register_forward_pre_hook(statistics.before)
            layer.register_forward_hook(statistics.after, always_call=True)

    def predict(self, x: Inputs) -> Tensor:
        assert isinstance(x, Tensor)
        adapted = self.model.clone()
        adapted.train(False)
        adapted.module.requires_grad_(True)
        return torch.cat([self._predicted(adapted, point) for point in x.split(1)])

    def _predicted(self, adapted: FoundationModel, point: Tensor) -> Tensor:
        """Logits (1, classes) of one point, after a step of ``adapted`` from the source model."""
        weights, source = (tuple(m.module.parameters()) for m in (adapted, self.model))
        views = self.augmix(point, self.config.views, self._draw(point))
        with torch.enable_grad():
            loss = marginal_entropy(adapted(views))
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        with torch.no_grad():
            self._step(weights, gradients)
            logits = adapted(point)
            torch._foreach_copy_(weights, source)
        return logits

    def _step(self, weights: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> None:
        """The first step of a new optimizer.

        Not one of torch's, which are for training: these weights are gone with the prediction.
        """
        rate = self.config.learning_rate
        steps: tuple[Tensor, ...] | list[Tensor] = gradients
        if self.config.optimizer == "adamw":
            torch._foreach_mul_(weights, 1 - rate * WEIGHT_DECAY)
            sizes = torch._foreach_abs(gradients)
            torch._foreach_add_(sizes, 1e-8)
            steps = torch._foreach_div(gradients, sizes)
        torch._foreach_add_(weights, steps, alpha=-rate)

    def _draw(self, point: Tensor) -> np.random.Generator:
        """Random numbers that depend on the seed and the point alone."""
        with uncounted():
            values = point.detach().cpu().contiguous().reshape(-1).view(torch.uint8).tolist()
        return np.random.default_rng([self.seed, zlib.crc32(bytes(values))])


class _PointStatistics(_OwnStatistics):
    """All views of a point count as one sample beside ``prior`` ones of the source.

    The variance of the views is torch's unbiased one, which running averages are made of; a layer
    that sees a single value keeps the source's statistics.
    """

    def before(self, layer: _BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        """Mix the source's statistics with the point's."""
        x = inputs[0]
        mean, variance = layer.running_mean, layer.running_var
        assert mean is not None
        assert variance is not None
        object.__setattr__(layer, "_of_source", (mean, variance, layer.training))
        layer.training = False
        axes = [0, *range(2, x.ndim)]
        if math.prod(x.shape[axis] for axis in axes) > 1:
            found = torch.var_mean(x.detach(), axes, correction=1)
            share = 1 / (1 + self.prior)
            layer.running_mean = torch.lerp(mean, found[1].to(mean.dtype), share)
            layer.running_var = torch.lerp(variance, found[0].to(variance.dtype), share)
