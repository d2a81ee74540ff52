"""DeYO: entropy minimisation on samples whose prediction depends on the object's shape."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from bench import (
    DomainView,
    FoundationModel,
    Method,
    MethodConfig,
    Unsupported,
    Window,
    register,
    take,
    tunable,
)
from bench.contracts.data import on_device

from ._batchnorm import Statistics, set_statistics
from ._losses import at_least_float32, entropy, take_step, train_only
from .sar import lower_affine_parameters


def shuffled_patches(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Each image cut into ``side`` x ``side`` patches, which change places at random.

    Images (n, channels, height, width), brought to sizes that ``side`` divides, and back. The
    order is drawn for each image of its own.
    """
    from torch.nn.functional import interpolate

    n, channels, height, width = images.shape
    h, w = height // side, width // side
    whole = (side * h, side * w)
    fits = whole == (height, width)
    x = images if fits else interpolate(images, whole, mode="bilinear", antialias=True)
    patches = x.reshape(n, channels, side, h, side, w).permute(0, 2, 4, 1, 3, 5)
    patches = patches.reshape(n, side * side, channels, h, w)
    order = torch.rand(n, side * side, generator=generator).argsort(dim=1)
    order = on_device(order, images.device)
    patches = patches[torch.arange(n, device=images.device).unsqueeze(1), order]
    patches = patches.reshape(n, side, side, channels, h, w).permute(0, 3, 1, 4, 2, 5)
    x = patches.reshape(n, channels, *whole)
    return x if fits else interpolate(x, (height, width), mode="bilinear", antialias=True)


class DeyoConfig(MethodConfig):
    """Settings of DeYO; defaults are the paper's for ImageNet-C.

    ``learning_rate``: of SGD with momentum 0.9, 1e-3 for ViT-B/16 and batches of 64 (2.5e-4 for
    ResNet-50); ``epochs``: passes, one in the paper; ``entropy_share``: tau_Ent of eq. (8), and
    ``weight_share``: Ent_0 of eq. (10), as shares of ln(classes); ``difference``: tau_PLPD of eq.
    (8); ``patches``: of a side; ``frozen_blocks``: share of the top blocks whose normalization
    stays as it is, as in `Sar`; ``statistics``: as in `Tent`.
    """

    learning_rate: float = tunable(1e-3, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(1, 1, 15, unit="passes", log=True, le=100)
    entropy_share: float = Field(0.5, gt=0, le=1)
    weight_share: float = Field(0.4, gt=0, le=1)
    difference: float = tunable(0.2, 0.0, 0.8, ge=-1, le=1)
    patches: int = Field(4, ge=2, le=32)
    frozen_blocks: float = Field(0.25, ge=0, le=1)
    statistics: Statistics = "batch"


@register("method", "deyo")
class Deyo(Method):
    """Destroy your object (Lee et al., ICLR 2024).

    Scale and shift of the lower normalization layers minimise the weighted entropy of samples that
    are certain and lose the probability of their own pseudo-label when the image's patches are
    shuffled (PLPD: their prediction rests on shape). Certain and shape-dependent samples weigh
    more. Images alone have patches.
    """

    Config = DeyoConfig
    config: DeyoConfig
    paper = (
        "Lee, Jung, Lee, Park, Shin, Hwang, Yoon: Entropy is not Enough for Test-Time Adaptation: "
        "From the Perspective of Disentangled Factors, ICLR 2024"
    )
    equation = (
        "min over normalization scale and shift: mean over i with H(p_i) < tau and d_i > delta of "
        "(exp(E_0 - H(p_i)) + exp(d_i)) H(p_i),  d_i = p_i(y_i) - p'_i(y_i), p' of shuffled patches"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        sample = take(source.x, torch.arange(1))
        if not isinstance(sample, Tensor) or sample.ndim != 4:
            raise Unsupported("deyo shuffles the patches of images; use eata or sar for other data")
        if min(sample.shape[2:]) < self.config.patches:
            raise Unsupported(
                f"deyo cuts images into {self.config.patches} patches a side, and they have "
                f"{tuple(sample.shape[2:])} pixels; give it fewer patches"
            )
        self.model = model
        set_statistics(model, self.config.statistics)
        lower = lower_affine_parameters(model, self.config.frozen_blocks)
        self.trained = train_only(model, lower)
        self.generator = torch.Generator().manual_seed(0)
        self.optimizer = torch.optim.SGD(self.trained, lr=self.config.learning_rate, momentum=0.9)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches(self.config.epochs), data_dependent=True):
            assert isinstance(batch.x, Tensor)
            loss = self._loss(batch.x, window)
            if loss is not None:
                take_step(self.optimizer, loss)
                window.log(loss=loss.detach())

    def _loss(self, x: Tensor, window: Window) -> Tensor | None:
        """Weighted mean entropy of the selected samples; None if no sample is selected."""
        logits = at_least_float32(self.model(x))
        largest = math.log(logits.shape[1])
        uncertainty = entropy(logits)
        certain = uncertainty < self.config.entropy_share * largest
        window.declare(sum(certain.tolist()))
        kept = certain.nonzero().squeeze(1)
        if not len(kept):
            return None
        difference = self._difference(x[kept], logits[kept].detach())
        shaped = difference > self.config.difference
        window.declare(sum(shaped.tolist()))
        chosen = shaped.nonzero().squeeze(1)
        if not len(chosen):
            return None
        uncertainty = uncertainty[kept[chosen]]
        margin = self.config.weight_share * largest
        weight = (margin - uncertainty.detach()).exp() + difference[chosen].exp()
        return (weight * uncertainty).mean()

    @torch.no_grad()
    def _difference(self, x: Tensor, logits: Tensor) -> Tensor:
        """PLPD of samples (n, channels, height, width): shape (n,), in [-1, 1], eq. (7)."""
        destroyed = self.model(shuffled_patches(x, self.config.patches, self.generator))
        probability = logits.softmax(dim=1)
        labels = probability.argmax(dim=1, keepdim=True)
        after = at_least_float32(destroyed).softmax(dim=1)
        return (probability.gather(1, labels) - after.gather(1, labels)).squeeze(1)
