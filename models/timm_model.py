"""Any image classifier of timm, by its name there."""

from __future__ import annotations

from typing import Any, Self, cast

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn.functional import interpolate

from bench import BenchError, Block, LocalPath, ModelConfig, register
from bench.contracts.data import Inputs
from bench.contracts.settings import HUB
from bench.errors import did_you_mean

from .vit import TimmViT
from .weights import not_fitting, read_state, with_fresh_head


class TimmConfig(ModelConfig):
    """``architecture``: timm's name of the network, with or without a tag.

    ``image_size``: pixels a side that the network is given, by default those of timm's
    configuration; images of another size are resized. ``weights``: a file or folder of
    safetensors or of a state dict saved by torch; "hub": timm's own from the Hugging Face hub;
    empty: random.
    """

    architecture: str = Field("resnet18", validate_default=True)
    image_size: int | None = Field(None, ge=8, le=2048)
    weights: LocalPath = ""

    @field_validator("architecture")
    @classmethod
    def _known(cls, name: str) -> str:
        import timm

        if not timm.is_model(name):
            cure = did_you_mean(name, timm.list_models())
            raise ValueError(f"timm knows no such architecture; {cure}")
        try:
            timm.get_pretrained_cfg(name, allow_unregistered=False)
        except RuntimeError as error:
            base, _, tag = name.partition(".")
            tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{base}.*")]
            raise ValueError(f"{base} has no weights {tag!r}; {did_you_mean(tag, tags)}") from error
        return name

    @field_validator("weights")
    @classmethod
    def _local(cls, weights: str, info: ValidationInfo) -> str:
        """For the hub the downloaded file: its path says name, tag and commit."""
        known = "architecture" in info.data  # else the architecture is what is wrong
        return from_hub(info.data["architecture"]) if weights == HUB and known else weights


def from_hub(architecture: str) -> str:
    """The local file of timm's weights on the hub, downloaded on first use; ValueError if not."""
    import timm
    from huggingface_hub import hf_hub_download

    facts: Any = timm.get_pretrained_cfg(architecture)
    repository = facts.hf_hub_id
    if not repository:
        raise ValueError(f"timm has no weights of {architecture} on the hub; give a local file")
    try:
        return str(hf_hub_download(repository, "model.safetensors"))
    except Exception as error:  # of the network, the hub and the file system, of many kinds
        raise ValueError(
            f"{repository} cannot be had ({type(error).__name__}); check the network, or give a "
            "local file"
        ) from error


@register("model", "timm")
class TimmModel(TimmViT):
    """An image classifier of timm, written as timm:NAME, with random weights or those of a file.

    Images are resized to the network's size and normalized by its own mean and deviation; for
    other numbers of channels than 3 by the averages of both. Plain vision transformers declare
    their blocks; to others LoRA, pruning and proxies do not apply.
    """

    Config = TimmConfig
    input_shape = (3, 224, 224)
    preload = ("timm",)
    named_setting = "architecture"
    conformance_config = {"image_size": 64}

    def __init__(self, module: nn.Module, image_size: int, interpolation: str) -> None:
        super().__init__(module)
        self.image_size = image_size
        self.interpolation = interpolation

    @classmethod
    def build(cls, config: TimmConfig, input_shape: tuple[int, ...], classes: int) -> TimmModel:
        """The network for images of ``input_shape``, (channels, height, width)."""
        module, facts, size = made_network(config, input_shape, classes)
        return cls._finished(module, facts, size, input_shape[0], facts.classifier)

    @classmethod
    def _finished(
        cls, module: nn.Module, facts: Any, size: int, channels: int, head_name: str
    ) -> Self:
        """The model of a network that is given images as timm's ``facts`` say."""
        made = cls(module, size, "bicubic" if facts.interpolation == "bicubic" else "bilinear")
        made.head_name = head_name
        made._normalize_by(facts.mean, facts.std, channels)
        return made

    def _normalize_by(self, mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
        # Buffers, so that they move with the network; not saved, as they belong to no checkpoint.
        for name, values in (("image_mean", mean), ("image_std", std)):
            values = values if channels == len(values) else (sum(values) / len(values),) * channels
            tensor = torch.tensor(values).view(-1, 1, 1)
            self.module.register_buffer(name, tensor, persistent=False)

    def __call__(self, x: Inputs) -> Tensor:
        """Logits of images (n, channels, height, width) with values in [0, 1]."""
        images = cast(Tensor, x)
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = interpolate(
                images, size, mode=self.interpolation, align_corners=False, antialias=True
            )
        module = cast(Any, self.module)
        return cast(Tensor, module((images - module.image_mean) / module.image_std))

    def blocks(self) -> list[Block]:
        return super().blocks() if is_plain(self.module) else []


def made_network(
    config: TimmConfig, input_shape: tuple[int, ...], classes: int
) -> tuple[nn.Module, Any, int]:
    """A network of timm with its weights, what timm knows of it, and the side of its images.

    ``classes`` 0: without a head. Raises BenchError if it cannot be built.
    """
    if len(input_shape) != 3:
        raise BenchError(
            f"timm: samples of shape {tuple(input_shape)} are no images (channels, height, "
            "width); choose a stream of images"
        )
    import timm

    facts: Any = timm.get_pretrained_cfg(config.architecture)
    if not isinstance(facts.classifier, str):
        raise BenchError(
            f"timm: {config.architecture} has no single head (its classifiers are "
            f"{facts.classifier}); name an architecture with one"
        )
    size = config.image_size or facts.input_size[-1]
    module = _network(config.architecture, facts, input_shape[0], classes, size)
    if config.weights:
        state = read_state(config.weights)
        if classes:
            state = with_fresh_head(state, module, facts.classifier, config.weights)
        else:
            state = {k: v for k, v in state.items() if not k.startswith(f"{facts.classifier}.")}
        loaded = {"state_dict": state, "num_classes": classes, "custom_load": False}
        try:
            module = _network(
                config.architecture, facts, input_shape[0], classes, size,
                pretrained=True, pretrained_cfg_overlay=loaded,
            )  # fmt: skip
        except (RuntimeError, KeyError, ValueError) as error:
            raise not_fitting(config.weights, error) from error
    return module, facts, size


def _network(
    name: str, facts: Any, channels: int, classes: int, size: int, **more: Any
) -> nn.Module:
    import timm

    if facts.fixed_input_size and size != facts.input_size[-1]:
        more["img_size"] = size
    try:
        module: nn.Module = timm.create_model(name, num_classes=classes, in_chans=channels, **more)
    except (AssertionError, TypeError) as error:
        raise BenchError(
            f"timm: {name} cannot be built for {channels} channels and images of {size} pixels a "
            f"side: {type(error).__name__}: {error}; give another image_size"
        ) from error
    return module


def is_plain(module: nn.Module) -> bool:
    """Whether it is a vision transformer whose blocks are the standard ones, and no kin of it."""
    from timm.layers.attention import Attention
    from timm.layers.mlp import Mlp
    from timm.models.vision_transformer import Block as Standard
    from timm.models.vision_transformer import VisionTransformer

    return type(module) is VisionTransformer and all(
        (type(block), type(block.attn), type(block.mlp)) == (Standard, Attention, Mlp)
        for block in cast(Any, module.blocks)
    )
