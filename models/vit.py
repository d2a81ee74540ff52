"""Vision transformers of timm: what all have in common, and ViT-B/16 of EdgeTA's experiments."""

from __future__ import annotations

from typing import Any, ClassVar, cast

from pydantic import Field
from torch import nn

from bench import (
    BenchError,
    Block,
    FoundationModel,
    LocalPath,
    ModelConfig,
    Unsupported,
    register,
)

from .weights import load_weights


class TimmViT(FoundationModel):
    """A model whose module is a ``VisionTransformer`` of timm, or has one at ``body``."""

    body: ClassVar[str] = ""

    def blocks(self) -> list[Block]:
        at = f"{self.body}.blocks" if self.body else "blocks"
        return [
            Block(
                qkv=(f"{at}.{i}.attn.qkv",),
                out=f"{at}.{i}.attn.proj",
                ff_in=f"{at}.{i}.mlp.fc1",
                ff_out=f"{at}.{i}.mlp.fc2",
                heads=int(block.attn.num_heads),
                attention=f"{at}.{i}.attn",
            )
            for i, block in enumerate(cast(Any, self.module.get_submodule(at)))
        ]

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        """Set the geometry of one block's ``Attention``.

        Raises Unsupported where the attention holds further weights whose size is the old width
        (normalized queries and keys, scaled or gated outputs), or takes it from the tokens' width.
        """
        attention = cast(Any, self.module.get_submodule(block.attention))
        for part in ("q_norm", "k_norm", "norm", "gate"):
            found = getattr(attention, part, None)
            if not (found is None or isinstance(found, nn.Identity)):
                raise Unsupported(
                    f"{block.attention}.{part} is {type(found).__name__} of the old width and is "
                    "not cut; use a vision transformer without it"
                )
        if not hasattr(attention, "attn_dim"):
            raise Unsupported(
                f"{block.attention} is {type(attention).__name__}, whose width is that of its "
                "tokens; use a timm whose Attention has attn_dim"
            )
        attention.num_heads, attention.head_dim = heads, head_width
        attention.attn_dim = heads * head_width
        attention.scale = head_width**-0.5


class ViTB16Config(ModelConfig):
    """``depth`` in blocks, fewer for quick checks. ``weights``: a file or folder of safetensors or
    of a state dict of timm's model saved by torch; empty: random weights.
    """

    depth: int = Field(12, ge=1)
    weights: LocalPath = Field("")


@register("model", "vit_base_patch16_224")
class ViTB16(TimmViT):
    """Vision transformer ViT-B/16 (timm), 12 blocks of width 768, 85.8 M parameters, 224 x 224.

    Dosovitskiy et al., ICLR 2021.
    """

    Config = ViTB16Config
    input_shape = (3, 224, 224)
    preload = ("timm.models.vision_transformer",)
    conformance_config = {"depth": 2}

    @classmethod
    def build(cls, config: ViTB16Config, input_shape: tuple[int, ...], classes: int) -> ViTB16:
        if tuple(input_shape) != cls.input_shape:
            raise BenchError(
                f"vit_base_patch16_224: input shape {tuple(input_shape)} is not {cls.input_shape}; "
                "choose a stream with such images"
            )
        from timm.models.vision_transformer import vit_base_patch16_224

        module = vit_base_patch16_224(pretrained=False, num_classes=classes, depth=config.depth)
        if config.weights:
            load_weights(module, config.weights, cls.head_name)
        return cls(module)
