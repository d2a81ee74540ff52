"""The embedded foundation models: small vision transformers of timm's class."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import ModelConfig, SourceTraining, register
from bench.contracts.data import Inputs

from .vit import TimmViT


class DigitsViTConfig(ModelConfig):
    """Sizes of the transformer: ``patch`` in pixels, ``width`` of a token, ``depth`` in blocks."""

    patch: int = Field(8, ge=1)
    width: int = Field(64, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)


@register("model", "digits-vit")
class DigitsViT(TimmViT):
    """Vision transformer (timm), 4 blocks of width 64, 0.21 M parameters, for small grey images.

    Dosovitskiy et al., ICLR 2021. Source training augments by moving each batch
    by up to one pixel, which lifts held-out accuracy by about one point.
    """

    Config = DigitsViTConfig
    input_shape = (1, 32, 32)
    preload = ("timm.models.vision_transformer", "torchvision.transforms.v2")
    source_training = SourceTraining(epochs=60, learning_rate=2e-3)

    @classmethod
    def build(
        cls, config: DigitsViTConfig, input_shape: tuple[int, ...], classes: int
    ) -> DigitsViT:
        from timm.models.vision_transformer import VisionTransformer

        channels, height, width = input_shape
        module = VisionTransformer(
            img_size=(height, width),
            patch_size=config.patch,
            in_chans=channels,
            num_classes=classes,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
        )
        return cls(module)

    def augment(self, x: Any) -> Tensor:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return torch.roll(x, (down, right), dims=(-2, -1))


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
