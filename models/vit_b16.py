"""ViT-B/16, the vision model of EdgeTA's experiments, by timm."""

from __future__ import annotations

from pydantic import Field

from bench import BenchError, LocalPath, ModelConfig, register

from .vit import TimmViT
from .weights import load_weights


class ViTB16Config(ModelConfig):
    """``weights``: path of a state dict of timm's model saved by torch; empty: random weights."""

    weights: LocalPath = Field("")


@register("model", "vit_base_patch16_224")
class ViTB16(TimmViT):
    """Vision transformer ViT-B/16 (timm), 12 blocks of width 768, 85.8 M parameters, 224 x 224.

    Dosovitskiy et al., ICLR 2021.
    """

    Config = ViTB16Config
    input_shape = (3, 224, 224)
    preload = ("timm.models.vision_transformer",)

    @classmethod
    def build(cls, config: ViTB16Config, input_shape: tuple[int, ...], classes: int) -> ViTB16:
        if tuple(input_shape) != cls.input_shape:
            raise BenchError(
                f"vit_base_patch16_224: input shape {tuple(input_shape)} is not {cls.input_shape}; "
                "choose a stream with such images"
            )
        from timm.models.vision_transformer import vit_base_patch16_224

        module = vit_base_patch16_224(pretrained=False, num_classes=classes)
        if config.weights:
            load_weights(module, config.weights, cls.head_name)
        return cls(module)
