"""The second embedded foundation model: a small ResNet with BatchNorm of timm's class."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Block, FoundationModel, ModelConfig, SourceTraining, register


class DigitsResNetConfig(ModelConfig):
    """``width``: channels of the first stage; the others have 2, 4 and 4 times as many."""

    width: int = Field(16, ge=4, multiple_of=2)


@register("model", "digits-resnet")
class DigitsResNet(FoundationModel):
    """ResNet (timm), 4 stages of one basic block each, BatchNorm, 0.16 M parameters.

    He et al., CVPR 2016. For small grey images; source training moves each batch by up to one
    pixel, as that of ``digits-vit``. It has no transformer blocks.
    """

    Config = DigitsResNetConfig
    input_shape = (1, 32, 32)
    preload = ("timm.models.resnet",)
    source_training = SourceTraining(epochs=20, learning_rate=3e-3)
    head_name = "fc"

    @classmethod
    def build(
        cls, config: DigitsResNetConfig, input_shape: tuple[int, ...], classes: int
    ) -> DigitsResNet:
        if len(input_shape) != 3:
            raise BenchError(
                f"digits-resnet: samples of shape {tuple(input_shape)} are no images (channels, "
                "height, width); choose a stream of images"
            )
        from timm.models.resnet import BasicBlock, ResNet

        block: Any = BasicBlock
        module = ResNet(
            block,
            layers=(1, 1, 1, 1),
            channels=tuple(config.width * factor for factor in (1, 2, 4, 4)),
            stem_type="deep",
            stem_width=config.width // 2,
            num_classes=classes,
            in_chans=input_shape[0],
        )
        return cls(module)

    def blocks(self) -> list[Block]:
        return []

    def augment(self, x: Any) -> Tensor:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return torch.roll(x, (down, right), dims=(-2, -1))
