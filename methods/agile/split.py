"""Building the parts of a split network that several methods share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .coding import Coder
from .networks import DevicePart, Extractor, standardise
from .offloading import Made, Server
from .quantiser import LinearQuantiser, Quantiser


def extractor(config: Any, x: Tensor, channels: int, further: int = 0) -> Extractor:
    """The extractor that settings ask for, scaled to images ``x``; see `config.RecipeConfig`."""
    made = Extractor(
        x.shape[1], channels, config.first_channels, config.stride, config.first == "plain", further
    )
    made.to(x.device)
    for layer in [each for each in made.modules() if isinstance(each, nn.Conv2d)]:
        standardise(made, layer, x)
    return made


@torch.no_grad()
def shape_of(network: nn.Module, x: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of what a network makes of images."""
    _, c, h, w = network(x).shape
    return int(c), int(h), int(w)


def made(device: DevicePart, network: nn.Module, coding: Any, facts: dict[str, Any]) -> Made:
    """A device's part and the server's ``network`` for what it sends."""
    quantiser = device.quantiser
    assert isinstance(quantiser, Quantiser | LinearQuantiser)
    levels = quantiser.values.detach()
    count = device.sent[0] * device.sent[1] * device.sent[2]
    coder = Coder(coding, count, len(levels))
    return Made(device, Server(network, coder, levels, device.sent), coder, facts)
