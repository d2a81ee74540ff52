"""The embedded foundation model: a small vision transformer of timm's class."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import Block, FoundationModel, ModelConfig, SourceTraining, register

from .vit import resize_vit_attention, vit_blocks


class DigitsViTConfig(ModelConfig):
    """Sizes of the transformer: ``patch`` in pixels, ``width`` of a token, ``depth`` in blocks."""

    patch: int = Field(8, ge=1)
    width: int = Field(64, ge=8)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)


@register("model", "digits-vit")
class DigitsViT(FoundationModel):
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
        return cls(
            VisionTransformer(
                img_size=(height, width),
                patch_size=config.patch,
                in_chans=channels,
                num_classes=classes,
                embed_dim=config.width,
                depth=config.depth,
                num_heads=config.heads,
            )
        )

    def blocks(self) -> list[Block]:
        return vit_blocks(self.module)

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        resize_vit_attention(self.module, block, heads, head_width)

    def augment(self, x: Any) -> Tensor:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return torch.roll(x, (down, right), dims=(-2, -1))
