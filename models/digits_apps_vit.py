"""The embedded foundation model for inputs that say which application they belong to."""

from __future__ import annotations

from torch import Tensor

from bench import register
from bench.contracts.data import Inputs

from .digits_vit import DigitsViT, DigitsViTConfig


@register("model", "digits-apps-vit")
class DigitsAppsViT(DigitsViT):
    """``digits-vit`` for several applications: it reads the images and passes over whose they are.

    Inputs are a dict of ``image``, float of shape (n, 1, height, width), and ``app``, int64 of
    shape (n,), or the images alone.
    """

    Config = DigitsViTConfig
    input_shape = (1, 32, 32)
    preload = ("timm.models.vision_transformer", "torchvision.transforms.v2")

    def __call__(self, x: Inputs) -> Tensor:
        return super().__call__(x["image"] if isinstance(x, dict) else x)

    def augment(self, x: Inputs) -> Inputs:
        if isinstance(x, dict):
            return {**x, "image": super().augment(x["image"])}
        return super().augment(x)
