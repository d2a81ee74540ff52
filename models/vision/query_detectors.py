"""Detectors of transformers whose queries each give one box: YOLOS and Grounding DINO."""

from __future__ import annotations

from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Block, Unsupported, register
from bench.contracts.data import Inputs

from ..hf_blocks import BERT, VIT
from ..hf_vision import IMAGENET, ImageModel
from ..hugging_face import EagerConfig, HuggingFaceConfig, has_weights
from .head import changed, folder_config, network, tokens_of, wrong_config
from .set_loss import (
    corners,
    focal_cost,
    focal_loss,
    logits_without_none,
    set_loss,
    softmax_cost,
    softmax_loss,
)

START, END, DOT, FIRST = 101, 102, 1012, 2000
"""BERT's tokens [CLS], [SEP] and ".", and that of the first class where there is no tokenizer."""


class YolosConfig(HuggingFaceConfig):
    """``image_size``: side of the square to which images are resized, a multiple of the patch."""

    image_size: int = Field(512, ge=8, le=4096)


class _QueryDetector(ImageModel):
    """A detector with a loss of its own; mAP and all else is the task's."""

    task = "detection"
    named_setting = "folder"
    normalization = IMAGENET
    side: int = 0

    @property
    def image_size(self) -> tuple[int, ...]:
        return (self.side, self.side)


@register("model", "hf-detector")
class Yolos(_QueryDetector):
    """YOLOS, a plain vision transformer with detection tokens, written as hf-detector:FOLDER.

    Fang et al., NeurIPS 2021. Images become squares of one size. The loss is that of DETR with one
    query for one box, without the losses of earlier layers; a class's score is its softmax over
    all classes and "no object". The head is that of classes, whose inputs are the detection tokens;
    the predictor of boxes counts as body.
    """

    Config = YolosConfig
    preload = ("transformers.models.yolos.modeling_yolos",)
    default = "YolosConfig"
    head_name = "class_labels_classifier"
    conformance_config = {
        "image_size": 32,
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 64, "image_size": [32, 32], "patch_size": 8,
            "num_detection_tokens": 6,
        },
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "YolosForObjectDetection"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> Yolos:
        import transformers

        assert isinstance(config, YolosConfig)
        found = folder_config(config, "hf-detector") if config.folder else None
        if found is not None and found.model_type != "yolos":
            raise wrong_config(config, "hf-detector", f"{found.model_type} is not YOLOS")
        found = changed(config, "hf-detector", transformers.YolosConfig, found)
        if config.image_size % found.patch_size:
            raise BenchError(
                f"hf-detector: image_size {config.image_size} is not divisible by the patch of "
                f"{found.patch_size}; use a multiple"
            )
        found.num_labels = classes
        kind = transformers.YolosForObjectDetection
        made = cls(network(config, "hf-detector", kind, found, "vit"))
        made.side = config.image_size
        return made

    def __call__(self, x: Inputs) -> Tensor:
        """Logits and boxes (n, detection tokens, classes + 4)."""
        found = self.module(pixel_values=self.prepared(cast(Tensor, x)))
        return torch.cat([logits_without_none(found.logits), corners(found.pred_boxes)], dim=2)

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """As YolosForObjectDetection's, a scalar; without label smoothing."""
        c = cast(Any, self.module).config
        weights = (1.0, c.bbox_loss_coefficient, c.giou_loss_coefficient)
        costs = (c.class_cost, c.bbox_cost, c.giou_cost)
        return set_loss(outputs, y, softmax_cost, softmax_loss(c.eos_coefficient), weights, costs)


class GroundingConfig(EagerConfig):
    """``names``: of the classes in the order of the data's numbers, the same for all domains; they
    are the prompt, and take a tokenizer in the folder. Without weights they may be left out, and
    each class is a token. ``image_size``: side of the square to which images are resized.
    """

    names: list[str] = Field([], max_length=1000)
    image_size: int = Field(512, ge=32, le=4096)


@register("model", "grounding-dino")
class GroundingDino(_QueryDetector):
    """Grounding DINO or MM-Grounding-DINO, by the folder's config: grounding-dino:FOLDER.

    Liu et al., ECCV 2024; Zhao et al., 2024. The prompt is the names of all classes, "a. b. c.", in
    the order of their numbers; a class's logit is the mean over its tokens. Images become squares
    of one size. The loss is that of transformers with one query for one box, of the last layer
    alone, over classes instead of tokens.

    Blocks are those of the image encoder (Swin), whose heads can be narrower but not fewer, and of
    the text encoder (BERT); fusion, decoder and heads stay whole. The head compares queries with
    the text, and has one number or none to learn.
    """

    Config = GroundingConfig
    preload = ("transformers.models.mm_grounding_dino.modeling_mm_grounding_dino",)
    default = "MMGroundingDinoConfig"
    conformance_config = {
        "image_size": 64,
        "changes": {
            "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 4,
            "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
            "num_queries": 6, "max_text_len": 32, "num_feature_levels": 3,
            "backbone_config": {
                "model_type": "swin", "window_size": 4, "image_size": 64, "embed_dim": 16,
                "depths": [1, 1, 1, 1], "num_heads": [2, 2, 2, 2], "out_indices": [2, 3, 4],
            },
            "text_config": {
                "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 2100,
                "max_position_embeddings": 64,
            },
        },
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "MMGroundingDinoForObjectDetection"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> GroundingDino:
        import transformers

        assert isinstance(config, GroundingConfig)
        found: Any = folder_config(config, "grounding-dino") if config.folder else None
        kinds: dict[str, Any] = {
            "mm-grounding-dino": transformers.MMGroundingDinoForObjectDetection,
            "grounding-dino": transformers.GroundingDinoForObjectDetection,
        }
        kind = kinds.get("mm-grounding-dino" if found is None else found.model_type)
        if kind is None:
            raise wrong_config(config, "grounding-dino", f"it is of {found.model_type}")
        found = changed(config, "grounding-dino", kind.config_class, found)
        tokens, of_class = _prompt(config, found, classes)
        made = cls(network(config, "grounding-dino", kind, found, "model"))
        made.side = config.image_size
        made.head_name = f"class_embed.{found.decoder_layers - 1}"
        # Buffers, so that they move with the network; they belong to no checkpoint.
        for name, tensor in (("prompt", tokens), ("tokens_of_class", of_class)):
            made.module.register_buffer(name, tensor, persistent=False)
        return made

    def __call__(self, x: Inputs) -> Tensor:
        """Logits and boxes (n, queries, classes + 4)."""
        images, module = self.prepared(cast(Tensor, x)), cast(Any, self.module)
        ids = module.prompt.expand(len(images), -1)
        found = module(pixel_values=images, input_ids=ids, attention_mask=torch.ones_like(ids))
        share = module.tokens_of_class.to(found.logits.dtype)
        logits = found.logits[..., : ids.shape[1]] @ share
        return torch.cat([logits, corners(found.pred_boxes)], dim=2)

    def loss(self, outputs: Tensor, y: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """One query for one box, with the focal loss of classes, a scalar; labels as they are."""
        c = cast(Any, self.module).config
        weights = (2.0, c.bbox_loss_coefficient, c.giou_loss_coefficient)
        costs = (c.class_cost, c.bbox_cost, c.giou_cost)
        return set_loss(outputs, y, focal_cost, focal_loss(c.focal_alpha), weights, costs)

    def blocks(self) -> list[Block]:
        names = [name for name, _ in self.module.named_modules()]
        vision = [n for n in names if n.endswith(".attention") and ".swin." in n]
        text = [n for n in names if n.endswith(".attention") and ".text_backbone." in n]
        return [
            self._block(name.removesuffix("attention"), layout)
            for found, layout in ((vision, VIT), (text, BERT))
            for name in found
        ]

    def resize_attention(self, block: Block, heads: int, head_width: int) -> None:
        if ".swin." in block.attention and heads != block.heads:
            raise Unsupported(
                f"{block.attention}: relative positions have a number for each of {block.heads} "
                "heads, which are not cut; use narrower heads (EdgeTA: attention: false)"
            )
        super().resize_attention(block, heads, head_width)


def _prompt(config: GroundingConfig, sizes: Any, classes: int) -> tuple[Tensor, Tensor]:
    """Ids (1, length) of the prompt, and the share of each token in each class (length, classes).

    Raises BenchError if names, tokenizer and classes do not fit.
    """
    names = _words(config, classes)
    ids, owner = [START], [-1]
    for number, tokens in enumerate(names):
        ids += [*tokens, DOT]
        owner += [number] * len(tokens) + [-1]
    ids, owner = [*ids, END], [*owner, -1]
    if len(ids) > sizes.max_text_len or max(ids) >= sizes.text_config.vocab_size:
        raise BenchError(
            f"grounding-dino: the prompt of {classes} classes has {len(ids)} tokens up to number "
            f"{max(ids)}, and the model takes {sizes.max_text_len} below "
            f"{sizes.text_config.vocab_size}; use fewer or shorter names, or another model"
        )
    one = torch.tensor(owner).unsqueeze(1) == torch.arange(classes)
    return torch.tensor([ids]), one / one.sum(dim=0)


def _words(config: GroundingConfig, classes: int) -> list[list[int]]:
    """The tokens of each class."""
    if not config.names and not has_weights(config.folder):
        return [[FIRST + number] for number in range(classes)]
    names = [name.strip().lower() for name in config.names]
    if len(names) != classes or len(set(names)) < classes or any("." in n or not n for n in names):
        raise BenchError(
            f"grounding-dino: the names {config.names} are not {classes} different ones without "
            "full stops; give 'names' one for each class of the data, in their order"
        )
    found = tokens_of(config, "grounding-dino", names, add_special_tokens=False)
    return cast(list[list[int]], found["input_ids"])
