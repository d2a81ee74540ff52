"""CLIP's image encoder as a classifier, with one of three heads."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from bench import BenchError, register
from bench.contracts.data import Inputs

from ..hf_vision import ImageModel
from ..hugging_face import HuggingFaceConfig
from .head import BodyWithHead, changed, folder_config, network, tokens_of, wrong_config


class ClipConfig(HuggingFaceConfig):
    """``changes`` are of the vision configuration.

    ``head``: a linear layer on the ``pooled`` output (as EdgeTA's release) or on the mean of the
    ``patches`` (as CLIPForImageClassification, whose classifier it is if the folder has one); or
    ``zero-shot``: its rows are the embeddings of ``prompt`` with each of ``names``, the names of
    the data's classes in their order, which takes weights and a tokenizer in the folder.
    """

    head: Literal["pooled", "patches", "zero-shot"] = "pooled"
    names: list[str] = Field([], max_length=10_000)
    prompt: str = "a photo of a {}."

    @model_validator(mode="after")
    def _names_go_with_prompts(self) -> ClipConfig:
        if bool(self.names) != (self.head == "zero-shot"):
            raise ValueError("'names' of the classes belong to head: zero-shot, and it needs them")
        if "{}" not in self.prompt:
            raise ValueError("'prompt' has no {} for the name of a class")
        return self


@register("model", "clip")
class Clip(ImageModel):
    """CLIP's image encoder and a linear layer, for classification, written as clip:FOLDER.

    Radford et al., ICML 2021. The folder is that of a CLIPModel, CLIPForImageClassification or
    CLIPVisionModel. The text encoder is used to make a zero-shot head and is no part of the model.
    """

    Config = ClipConfig
    named_setting = "folder"
    normalization = (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711),
    )  # fmt: skip
    preload = ("transformers.models.clip.modeling_clip",)
    default = "CLIPConfig"
    conformance_config = {
        "changes": {
            "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
            "intermediate_size": 64, "image_size": 32, "patch_size": 8,
        }
    }  # fmt: skip

    @classmethod
    def network(cls) -> str:
        return "CLIPForImageClassification"

    @classmethod
    def made(cls, config: HuggingFaceConfig, classes: int, **sizes: Any) -> Clip:
        import transformers

        assert isinstance(config, ClipConfig)
        found = folder_config(config, "clip") if config.folder else transformers.CLIPConfig()
        vision = getattr(found, "vision_config", found)
        vision = changed(config, "clip", transformers.CLIPVisionConfig, vision)
        if config.head == "zero-shot":
            return cls(_zero_shot(config, found, vision, classes))
        taken = _pooled if config.head == "pooled" else _mean_of_patches
        if found.model_type == "clip_vision_model":  # its weights have other names
            body: Any = network(config, "clip", transformers.CLIPVisionModel, vision)
            head = nn.Linear(vision.hidden_size, classes, dtype=body.dtype)
            return cls(BodyWithHead(body, head, taken))
        kind: Any = transformers.CLIPForImageClassification
        whole = kind.config_class(vision_config=vision.to_dict(), num_labels=classes)
        made: Any = network(config, "clip", kind, whole, "vision_model")
        return cls(BodyWithHead(made.vision_model, made.classifier, taken))

    def __call__(self, x: Inputs) -> Tensor:
        """Logits (n, classes)."""
        return cast(Tensor, self.module(self.prepared(cast(Tensor, x))))


def _pooled(found: Any) -> Tensor:
    return cast(Tensor, found.pooler_output)


def _mean_of_patches(found: Any) -> Tensor:
    return cast(Tensor, found.last_hidden_state[:, 1:].mean(dim=1))


def _direction(found: Any) -> Tensor:
    return nn.functional.normalize(found.image_embeds, dim=-1)


def _zero_shot(config: ClipConfig, found: Any, vision: Any, classes: int) -> nn.Module:
    """The image encoder and its projection, and a head of the texts' scaled embeddings."""
    import transformers

    if len(config.names) != classes:
        raise BenchError(
            f"clip: {len(config.names)} names for {classes} classes; give 'names' one for each "
            "class of the data, in their order"
        )
    if not hasattr(found, "text_config"):
        raise wrong_config(config, "clip", "it has no text encoder")
    kind: Any = transformers.CLIPModel
    whole = kind.config_class(
        vision_config=vision.to_dict(), text_config=found.text_config.to_dict(),
        projection_dim=found.projection_dim,
    )  # fmt: skip
    both: Any = network(config, "clip", kind, whole)
    prompts = [config.prompt.format(name) for name in config.names]
    texts = tokens_of(config, "clip", prompts, padding=True, return_tensors="pt")
    whole.vision_config.projection_dim = whole.projection_dim
    body: Any = transformers.CLIPVisionModelWithProjection._from_config(
        whole.vision_config, attn_implementation=config.attention, dtype=both.dtype
    )
    body.vision_model, body.visual_projection = both.vision_model, both.visual_projection
    head = nn.Linear(whole.projection_dim, classes, bias=False, dtype=both.dtype)
    both.train(False)
    with torch.no_grad():
        embedded = both.text_model(**texts).pooler_output
        rows = nn.functional.normalize(both.text_projection(embedded), dim=-1)
        head.weight.copy_(both.logit_scale.exp() * rows)
    return BodyWithHead(body, head, _direction)
