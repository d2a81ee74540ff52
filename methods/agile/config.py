"""Settings that offloading methods share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from bench import MethodConfig

from .coding import Coding

Adapts = Literal["nothing", "weight", "local", "both"]


class LinkConfig(MethodConfig):
    """The link: rate, loss and what is sent over it.

    ``rate_kbps``: kilobits a second, both ways; 0: there is no link. ``loss`` and ``corruption``:
    share of the messages that are lost, or arrive with a changed byte; nothing is sent twice.
    ``dies_after``: messages after which the server's process ends, 0: it does not. ``deadline_ms``:
    how long the device waits for an answer to a message that is lost, before it goes on alone.
    ``coding``: of what is sent: ``lzw`` as published, ``zlib`` or ``lzma`` of the standard library,
    or ``packed``, as many bits as a symbol needs.
    """

    rate_kbps: float = Field(6000.0, ge=0, le=1e7)
    loss: float = Field(0.0, ge=0, le=1)
    corruption: float = Field(0.0, ge=0, le=1)
    dies_after: int = Field(0, ge=0, le=10**9)
    deadline_ms: float = Field(200.0, ge=0, le=1e6)
    coding: Coding = "lzw"


class RecipeConfig(MethodConfig):
    """The device's part, and how it is trained before deployment.

    ``channels``: features of the extractor; ``first_channels``: of its first convolution;
    ``stride``: of both together (the paper's is 3 for images of 96 pixels; 4 leaves 8x8 features of
    images of 32, which are fewer bytes than the image); ``first``: ``plain``, an ordinary
    convolution, or ``separable`` as published, which of a grey image keeps one filter of space.
    ``epochs`` of training (the paper: 200, on 50,000 images) with a one-cycle rate up to
    ``learning_rate`` by ``optimizer``: AdamW; or ``sgd`` with momentum and decoupled decay as
    published, at 0.1, by which features behind ReLU6 die on a small source.
    """

    channels: int = Field(24, ge=2, le=256)
    first_channels: int = Field(4, ge=1, le=256)
    stride: int = Field(4, ge=1, le=32)
    first: Literal["plain", "separable"] = "plain"
    epochs: int = Field(12, ge=1, le=10_000)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0, le=10)


class AdaptConfig(MethodConfig):
    """What adapts on the device, by entropy minimisation; the server's network stays.

    ``adapts``: ``nothing``; the combination ``weight``; the ``local`` head; ``both``.
    ``adapt_rate``: learning rate of SGD without momentum.
    """

    adapts: Adapts = "both"
    adapt_rate: float = Field(1e-2, gt=0, le=10)


def shaping(config: Any, *classes: type[MethodConfig]) -> dict[str, Any]:
    """The settings of ``config`` but for those of ``classes``: what shapes the offline training."""
    others = {name for each in classes for name in each.model_fields}
    kept: Mapping[str, Any] = config.model_dump(mode="json")
    return {name: value for name, value in kept.items() if name not in others}
