"""The image encoder of SAM with a linear head on its neck."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from bench import Block, Unsupported, register
from bench.contracts.data import Inputs

from ..hf_vision import IMAGENET, ImageModel
from ..hugging_face import HuggingFaceConfig
from .head import BodyWithHead, changed, folder_config, network

SPREAD = 0.02
"""Of fresh weights: with that of transformers' configuration, 1e-10, all images look alike."""


@register("model", "sam")
class Sam(ImageModel):
    """SAM's image encoder and a linear layer on its neck, for segmentation, written as sam:FOLDER.

    Kirillov et al., ICCV 2023, as EdgeTA's release takes it: without prompts and mask decoder. The
    folder is that of a SamModel or SamVisionModel; ``changes`` are of the vision configuration.
    Images are resized to the square that the encoder takes, by default 1024 pixels a side.

    Heads can be cut, and neurons; a head cannot be narrower, as all heads share relative positions
    of its width: EdgeTA needs ``attention: true``, and ``compressed`` does not apply.
    """

    task = "segmentation"
    named_setting = "folder"
    normalization = IMAGENET
    preload = ("transformers.models.sam.modeling_sam",)
    default = "SamVisionConfig"
    conformance_config = {
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 64,
            "image_size": 32, "patch_size": 4, "output_channels": 32, "window_size": 4,
            "global_attn_indexes": [2], "num_pos_feats": 16,
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "SamVisionModel"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> Sam:
        from transformers import SamVisionConfig, SamVisionModel

        found = folder_config(config, "sam") if config.folder else None
        vision = changed(config, "sam", SamVisionConfig, getattr(found, "vision_config", found))
        if "initializer_range" not in config.changes:
            vision.initializer_range = SPREAD
        body = network(config, "sam", SamVisionModel, vision)
        head = nn.Linear(vision.output_channels, classes, dtype=cast(Any, body).dtype)
        return cls(BodyWithHead(body, head, _places))

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, classes, h, w), a sixteenth of the side that the encoder takes."""
        logits = cast(Tensor, self.module(self.prepared(cast(Tensor, x))))
        side = round(logits.shape[1] ** 0.5)
        return logits.transpose(1, 2).unflatten(2, (side, side))

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention = cast(Any, self.module.get_submodule(block.attention))
        width = attention.rel_pos_h.shape[1] if attention.use_rel_pos else head_width
        if head_width != width:
            raise Unsupported(
                f"{block.attention}.rel_pos_h has the width {width} of a head and is shared by all "
                "heads: cut whole heads instead (EdgeTA: attention: true)"
            )
        super().resize_attention(block, heads, head_width)


def _places(found: Any) -> Tensor:
    """What the neck gives, (n, places, width)."""
    return cast(Tensor, found.last_hidden_state.flatten(2).transpose(1, 2))
