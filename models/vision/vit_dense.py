"""Vision transformers of timm for segmentation and detection."""

from __future__ import annotations

import math
from typing import Any, ClassVar, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import BenchError, Block, SourceTraining, register

from ..timm_model import TimmConfig, TimmModel, is_plain, made_network

BOX, PRIOR = 4, -4.6
"""Numbers of a box, and what makes a first score of 0.01."""
FIRST = math.log(math.e**2 - 1)
"""What makes the edges of the first boxes two cells away from the middle of their cell."""
GROUPS = 16
"""Of channels that are normalized together in the neck and the towers."""


class DenseConfig(TimmConfig):
    """As of ``timm``: a plain vision transformer, ``image_size`` a multiple of its patch."""

    architecture: str = Field("vit_base_patch16_224", validate_default=True)


class DetectorConfig(DenseConfig):
    """``width``: channels of the pyramid and of the head's towers."""

    width: int = Field(128, ge=GROUPS, le=4096, multiple_of=GROUPS)


class _Dense(TimmModel):
    """A vision transformer of timm without its head, at ``body`` of the module."""

    named_setting = "architecture"
    body: ClassVar[str] = "body"
    source_training = SourceTraining(epochs=20, learning_rate=1e-3)

    def blocks(self) -> list[Block]:
        return super(TimmModel, self).blocks()


def _body(config: TimmConfig, input_shape: tuple[int, ...]) -> tuple[Any, Any, int]:
    module, facts, size = made_network(config, input_shape, 0)
    if not is_plain(module):
        raise BenchError(
            f"{config.architecture} is no plain vision transformer; give one, as "
            "vit_base_patch16_224"
        )
    return module, facts, size


class SegmentationNet(nn.Module):
    """A class for each patch, by one linear layer."""

    def __init__(self, body: Any, classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(body.embed_dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, classes, height, width) of the patches."""
        (patches,) = self.body.forward_intermediates(x, [-1], norm=True, intermediates_only=True)
        logits = cast(Tensor, self.head(patches.flatten(2).transpose(1, 2)))
        return logits.transpose(1, 2).unflatten(2, patches.shape[2:])


@register("model", "vit-segmenter")
class ViTSegmenter(_Dense):
    """Vision transformer with a class for each patch, as EdgeTA's, written as vit-segmenter:NAME.

    NAME is a plain vision transformer of timm, by default ViT-B/16; one linear layer on the tokens
    of its patches, whose outputs the task enlarges.
    """

    Config = DenseConfig
    task = "segmentation"
    conformance_config = {"architecture": "test_vit", "image_size": 64}

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> ViTSegmenter:
        body, facts, size = _body(config, input_shape)
        return cls._finished(SegmentationNet(body, classes), facts, size, input_shape[0], "head")


class DetectionNet(nn.Module):
    """A pyramid of three scales from three depths of ``body``, and a head that is common to them.

    The tokens after a third of the blocks are enlarged twice, those after two thirds stay, those
    at the end are halved; each scale is added, enlarged, to the next finer one (FPN). One tower of
    convolutions is for classes and one for boxes, as of YOLOX; the last layer, which sees both, is
    linear.
    """

    def __init__(self, body: Any, classes: int, width: int) -> None:
        super().__init__()
        self.body = body
        depth = len(body.blocks)
        self.depths = [max(depth // 3, 1) - 1, max(2 * depth // 3, 1) - 1, depth - 1]
        inner = body.embed_dim
        self.finer = nn.ConvTranspose2d(inner, width, 2, 2)
        self.same = nn.Conv2d(inner, width, 1)
        self.coarser = nn.Conv2d(inner, width, 3, 2, 1)
        self.smooth = nn.ModuleList(_convolution(width) for _ in range(3))
        self.classes, self.boxes = (
            nn.Sequential(_convolution(width), _convolution(width)) for _ in range(2)
        )
        self.head = nn.Linear(2 * width, classes + BOX)
        nn.init.constant_(self.head.bias[:classes], PRIOR)
        nn.init.constant_(self.head.bias[classes:], FIRST)

    def forward(self, x: Tensor) -> Tensor:
        """Logits and boxes (n, cells, classes + 4), from the finest scale to the coarsest."""
        early, middle, late = self._scales(x)
        middle = middle + _as_large(late, middle)
        early = early + _as_large(middle, early)
        pairs = zip(self.smooth, (early, middle, late), strict=True)
        scales = [smooth(scale) for smooth, scale in pairs]
        seen = [torch.cat([self.classes(scale), self.boxes(scale)], dim=1) for scale in scales]
        raw = self.head(torch.cat([each.flatten(2).transpose(1, 2) for each in seen], dim=1))
        cells = torch.cat([_cells(scale) for scale in scales])
        away = nn.functional.softplus(raw[..., -BOX:]) * cells[:, 2:].repeat(1, 2)
        middles = cells[:, :2]
        boxes = torch.cat([middles - away[..., :2], middles + away[..., 2:]], dim=2)
        return torch.cat([raw[..., :-BOX], boxes], dim=2)

    def _scales(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = self.body.forward_intermediates(
            x, sorted(set(self.depths)), norm=True, intermediates_only=True
        )
        at = dict(zip(sorted(set(self.depths)), found, strict=True))
        early, middle, late = (at[depth] for depth in self.depths)
        return self.finer(early), self.same(middle), self.coarser(late)


def _convolution(width: int) -> nn.Sequential:
    """The same for any batch, unlike YOLOX's, which normalize by statistics of the batch."""
    layer = nn.Conv2d(width, width, 3, padding=1, bias=False)
    return nn.Sequential(layer, nn.GroupNorm(GROUPS, width), nn.SiLU())


def _as_large(small: Tensor, large: Tensor) -> Tensor:
    return nn.functional.interpolate(small, size=large.shape[2:], mode="nearest")


def _cells(scale: Tensor) -> Tensor:
    """Middles and sizes (cells, 4) of a scale's cells as shares of the image: x, y, w, h."""
    height, width = scale.shape[2:]
    down, across = ((torch.arange(n).to(scale) + 0.5) / n for n in (height, width))
    middles = torch.cartesian_prod(down, across).flip(1)
    return torch.cat([middles, scale.new_tensor([1 / width, 1 / height]).expand_as(middles)], 1)


@register("model", "vit-detector")
class ViTDetector(_Dense):
    """Vision transformer with a detection head on three depths, written as vit-detector:NAME.

    NAME is a plain vision transformer of timm, by default ViT-B/16; the head is a pyramid with
    towers as YOLOX's, like that of EdgeTA's experiments. It has no score of objectness, which the
    loss of the task does not know.
    """

    Config = DetectorConfig
    task = "detection"
    conformance_config = {"architecture": "test_vit", "image_size": 64, "width": 32}

    @classmethod
    def build(cls, config: Any, input_shape: tuple[int, ...], classes: int) -> ViTDetector:
        body, facts, size = _body(config, input_shape)
        net = DetectionNet(body, classes, config.width)
        return cls._finished(net, facts, size, input_shape[0], "head")
