"""All remote: the device sends the image, the server has the whole model."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from bench import DomainView, FoundationModel, register

from .coding import Coder, Coding
from .config import LinkConfig
from .offloading import Made, Offloading

_RANGE = struct.Struct(">ff")
LEVELS = 256
"""Values of a pixel."""


class AllRemoteConfig(LinkConfig):
    """Settings of the link. ``coding``: of the pixels, ``packed`` sends them as they are."""

    coding: Coding = Field("packed")


class Camera(nn.Module):
    """The device's part: images as pixels of 8 bits, from each image's lowest to its highest value.

    It has no prediction of its own: zeros stand for one.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        """As `predicted`, of images."""
        return self.predicted(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """The images in float32."""
        return x.float()

    def predicted(self, features: Tensor) -> Tensor:
        """Zeros, (n, classes)."""
        return features.new_zeros(len(features), self.classes)

    def combined(self, local: Tensor, remote: Tensor) -> Tensor:
        """The server's prediction."""
        return remote


class ImageServer:
    """The whole model on an image that was sent: its range, then the code of its pixels."""

    def __init__(self, network: nn.Module, coder: Coder, shape: tuple[int, ...]) -> None:
        self._network, self._coder, self._shape = network.cpu().float().eval(), coder, shape

    def __call__(self, message: bytes) -> bytes:
        low, high = _RANGE.unpack_from(message)
        pixels = np.frombuffer(self._coder.decode(message[_RANGE.size :]), np.uint8)
        x = low + pixels.astype(np.float32) * ((high - low) / (LEVELS - 1))
        logits: Any = self._network(torch.from_numpy(x).reshape(1, *self._shape))[0].numpy()
        return bytes(logits.astype(np.float32).tobytes())


@register("method", "all-remote")
class AllRemote(Offloading):
    """The image goes to the server, which has the source model; the device computes nothing else.

    ``coding: packed`` sends raw pixels, ``lzw`` compresses them without loss, as the edge-only
    reference of AgileNN's study does. Without a link there is no prediction. Nothing adapts.
    """

    Config = AllRemoteConfig
    config: AllRemoteConfig
    answers_alone = False
    paper = "none: the reference that sends its inputs; edge-only in Huang and Gao, MobiCom 2022"
    equation = "w stays what it is"

    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        shape = tuple(x.shape[1:])
        coder = Coder(self.config.coding, x[0].numel(), LEVELS)
        return Made(Camera(classes), ImageServer(model.module, coder, shape), coder, {})

    def adapted(self, device: Any) -> list[nn.Parameter]:
        return []

    def symbols(self, features: Tensor) -> Tensor:
        low, high = _ends(features)
        scaled = (features - low) / (high - low).clamp_min(1e-12) * (LEVELS - 1)
        return scaled.round().to(torch.uint8)

    def messages(self, features: Tensor, chosen: Tensor) -> list[bytes]:
        coded = super().messages(features, chosen)
        low, high = (end[chosen].flatten().tolist() for end in _ends(features))
        return [_RANGE.pack(*ends) + code for *ends, code in zip(low, high, coded, strict=True)]


def _ends(x: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and the highest value of each image, (n, 1, 1, 1)."""
    return x.amin(dim=(1, 2, 3), keepdim=True), x.amax(dim=(1, 2, 3), keepdim=True)
