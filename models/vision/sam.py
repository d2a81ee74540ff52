"""SAM: its image encoder with a linear head on the neck, or whole with a box as prompt."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from bench import BenchError, Block, Unsupported, register
from bench.contracts.data import Inputs, uncounted

from ..hf_blocks import SAM
from ..hf_vision import IMAGENET, ImageModel
from ..hugging_face import HuggingFaceConfig
from .head import BodyWithHead, changed, folder_config, network, wrong_config

SPREAD = 0.02
"""Of fresh weights: with that of transformers' configuration, 1e-10, all images look alike."""

TINY: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_dim": 64,
    "image_size": 32, "patch_size": 4, "output_channels": 32, "window_size": 4,
    "global_attn_indexes": [2], "num_pos_feats": 16,
}  # fmt: skip
"""Of the vision configuration, for checks."""


class _Sam(ImageModel):
    """What is common to both: the image encoder, its blocks and its sizes."""

    task = "segmentation"
    named_setting = "folder"
    normalization = IMAGENET
    preload = ("transformers.models.sam.modeling_sam",)

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        attention = cast(Any, self.module.get_submodule(block.attention))
        width = attention.rel_pos_h.shape[1] if attention.use_rel_pos else head_width
        if head_width != width:
            raise Unsupported(
                f"{block.attention}.rel_pos_h has the width {width} of a head and is shared by all "
                "heads: cut whole heads instead (EdgeTA: attention: true)"
            )
        super().resize_attention(block, heads, head_width)


def _vision(config: HuggingFaceConfig, name: str, found: Any) -> Any:
    """The vision configuration with the settings' changes; ``found``: what the folder says."""
    from transformers import SamVisionConfig

    vision = changed(config, name, SamVisionConfig, getattr(found, "vision_config", found))
    if "initializer_range" not in config.changes:
        vision.initializer_range = SPREAD
    return vision


@register("model", "sam")
class Sam(_Sam):
    """SAM's image encoder and a linear layer on its neck, for segmentation, written as sam:FOLDER.

    Kirillov et al., ICCV 2023, as EdgeTA's release takes it: without prompts and mask decoder. The
    folder is that of a SamModel or SamVisionModel; ``changes`` are of the vision configuration.
    Images are resized to the square that the encoder takes, by default 1024 pixels a side.

    Heads can be cut, and neurons; a head cannot be narrower, as all heads share relative positions
    of its width: EdgeTA needs ``attention: true``, and ``compressed`` does not apply.
    """

    default = "SamVisionConfig"
    conformance_config = {"changes": TINY}

    @classmethod
    def network(cls) -> str:
        return "SamVisionModel"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> Sam:
        from transformers import SamVisionModel

        found = folder_config(config, "sam") if config.folder else None
        vision = _vision(config, "sam", found)
        body = network(config, "sam", SamVisionModel, vision)
        head = nn.Linear(vision.output_channels, classes, dtype=cast(Any, body).dtype)
        return cls(BodyWithHead(body, head, _places))

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, classes, h, w), a sixteenth of the side that the encoder takes."""
        logits = cast(Tensor, self.module(self.prepared(cast(Tensor, x))))
        side = round(logits.shape[1] ** 0.5)
        return logits.transpose(1, 2).unflatten(2, (side, side))


def _places(found: Any) -> Tensor:
    """What the neck gives, (n, places, width)."""
    return cast(Tensor, found.last_hidden_state.flatten(2).transpose(1, 2))


class PromptedSamConfig(HuggingFaceConfig):
    """As `HuggingFaceConfig`. ``changes`` are of the vision configuration, which the sizes of the
    prompt encoder follow. ``decoder``: changes of the mask decoder's configuration.
    """

    decoder: dict[str, Any] = {}


@register("model", "sam-prompted")
class PromptedSam(_Sam):
    """SAM with a box as prompt, for the mask of the object in it, written as sam-prompted:FOLDER.

    Kirillov et al., ICCV 2023: image encoder, prompt encoder and mask decoder of a SamModel. A
    sample is an image with one box, as the data set `box-prompts` gives them: a dict of ``image``,
    and ``box``, float32 (n, 4): left, upper, right and lower edge in pixels of the image. Both are
    stretched to the square that the encoder takes, by default 1024 pixels a side; SAM's own
    processor pads images that are not square instead.

    There are two classes, background and object. Their logits are 0 and that of the decoder's
    single mask, so that the object's probability is its sigmoid, and the object is where it is
    above 0, as in SAM. The loss is the task's cross-entropy; SAM was trained with focal and dice
    losses.

    Blocks are those of the image encoder, see `sam`; prompt encoder and mask decoder stay whole.
    The head is the network that makes the weights of a linear classifier of pixels out of the
    mask's token, and features are the embeddings of pixels that these weights are for. The
    frequencies of the embedding of positions are not trained, as in the authors' code.
    """

    Config = PromptedSamConfig
    default = "SamConfig"
    fixed_classes = 2
    takes_boxes = True
    head_name = "mask_decoder.output_hypernetworks_mlps.0"
    conformance_config = {
        "changes": TINY,
        "decoder": {"mlp_dim": 32, "iou_head_hidden_dim": 32, "num_attention_heads": 4},
    }

    @classmethod
    def network(cls) -> str:
        return "SamModel"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> PromptedSam:
        from transformers import SamModel

        assert isinstance(config, PromptedSamConfig)
        if classes != cls.fixed_classes:
            raise Unsupported(
                f"sam-prompted: {classes} classes are asked for, and it tells an object from its "
                "background, 2: take the data set box-prompts (bench fit: --classes 2), or the "
                "model sam"
            )
        made = cls(network(config, "sam-prompted", SamModel, _whole(config)))
        module = cast(Any, made.module)
        for layer in (module.shared_image_embedding, module.prompt_encoder.shared_embedding):
            # Frequencies that were drawn once: a buffer in the authors' code.
            drawn = layer.positional_embedding.detach()
            del layer.positional_embedding
            layer.register_buffer("positional_embedding", drawn)
        return made

    @property
    def image_size(self) -> tuple[int, ...]:
        side = cast(Any, self.module).config.vision_config.image_size
        return (side, side)

    def blocks(self) -> list[Block]:
        return self.blocks_in(SAM.layers, SAM)

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, 2, h, w) of background and object, a quarter of the side that the encoder
        takes. Unsupported for samples without boxes, BenchError for a box that is none.
        """
        if not (isinstance(x, dict) and {"image", "box"} <= x.keys()):
            there = ", ".join(x) if isinstance(x, dict) else "one tensor"
            raise Unsupported(
                f"sam-prompted: samples are {there}, and it needs 'image' and 'box': take the data "
                "set box-prompts, or the model sam"
            )
        size = tuple(x["image"].shape[-2:])
        _require_boxes(x["box"], len(x["image"]), size)
        scale = [to / side for to, side in zip(self.image_size, size, strict=True)][::-1] * 2
        box = x["box"] * x["box"].new_tensor(scale, dtype=torch.float32)
        found = self.module(
            pixel_values=self.prepared(x["image"]),
            input_boxes=box.unsqueeze(1),
            multimask_output=False,
        )
        logits = cast(Tensor, found.pred_masks.squeeze(1))
        return torch.cat([torch.zeros_like(logits), logits], dim=1)

    def with_features(self, x: Inputs) -> tuple[Tensor, Tensor]:
        """Outputs, and the embeddings of their pixels, (n, width, h, w), see the class."""
        caught: list[Tensor] = []
        # It is called twice; the second time it gives what the masks' weights are for.
        activation = cast(Any, self.module).mask_decoder.activation
        handle = activation.register_forward_hook(lambda *call: caught.append(call[2]))
        try:
            outputs = self(x)
        finally:
            handle.remove()
        return outputs, caught[-1]


def _whole(config: PromptedSamConfig) -> Any:
    """The configuration of a SamModel; BenchError if its parts do not fit."""
    from transformers import SamConfig

    found: Any = folder_config(config, "sam-prompted") if config.folder else SamConfig()
    if found.model_type != "sam":
        raise wrong_config(config, "sam-prompted", f"{found.model_type} is no whole SAM")
    vision = _vision(config, "sam-prompted", found)
    width = vision.output_channels
    prompt = found.prompt_encoder_config.to_dict()
    prompt |= {key: getattr(vision, key) for key in ("image_size", "patch_size")}
    prompt |= {"hidden_size": width, "image_embedding_size": vision.image_size // vision.patch_size}
    decoder = {**found.mask_decoder_config.to_dict(), "hidden_size": width, **config.decoder}
    for key, value, wanted in (
        ("num_pos_feats", vision.num_pos_feats, width // 2),
        ("decoder: hidden_size", decoder["hidden_size"], width),
    ):
        if value != wanted:
            said = f"{key} is {value}, and output_channels {width} need {wanted}"
            raise wrong_config(config, "sam-prompted", said)
    try:
        return SamConfig(
            vision_config=vision.to_dict(), prompt_encoder_config=prompt,
            mask_decoder_config=decoder,
        )  # fmt: skip
    except Exception as error:  # as in `changed`
        raise wrong_config(config, "sam-prompted", error) from error


def _require_boxes(boxes: Tensor, n: int, size: tuple[int, ...]) -> None:
    """BenchError unless these are n boxes that are in images of ``size`` and not empty."""
    if tuple(boxes.shape) != (n, 4):
        raise BenchError(
            f"sam-prompted: boxes have the shape {tuple(boxes.shape)} for {n} images: give one a "
            f"sample, ({n}, 4)"
        )
    height, width = size
    with uncounted():  # of no device's work
        left, upper, right, lower = boxes.unbind(dim=1)
        good = (left >= 0) & (left < right) & (right <= width)
        good &= (upper >= 0) & (upper < lower) & (lower <= height)
        if not bool(good.all()):
            i = int((~good).nonzero()[0])
            shown = ", ".join(f"{edge:g}" for edge in boxes[i].tolist())
            raise BenchError(
                f"sam-prompted: sample {i} of a batch has the box {shown} (left, upper, right, "
                f"lower), which is empty or leaves its image of {width} x {height} pixels: give "
                "edges in pixels, right and lower ones outside"
            )
