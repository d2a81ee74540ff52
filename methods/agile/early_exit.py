"""Early exit: what the device is sure of it answers itself, the rest goes on at the server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import DomainView, FoundationModel, register

from .config import LinkConfig, RecipeConfig, shaping
from .networks import DevicePart, without_stem
from .offloading import Made, Offloading
from .quantiser import LinearQuantiser
from .split import extractor, made, shape_of
from .training import Source, accuracy, fit, made_offline


class EarlyExitConfig(RecipeConfig, LinkConfig):
    """Settings of the early exit beside those of the link and of the recipe.

    ``confidence``: the largest probability from which on the device answers itself; ``further``:
    separable layers of the device behind its extractor; ``levels``: of a feature that is sent, 256
    for 8 bits; ``exit_loss``: weight of the cross-entropy at the exit, beside 1 at the end;
    ``exit_head``: ``flat``, it sees each position of the features, or ``mean``, their means alone.
    """

    confidence: float = Field(0.8, ge=0, le=1)
    further: int = Field(2, ge=0, le=32)
    levels: int = Field(256, ge=2, le=256)
    exit_loss: float = Field(1.0, gt=0, le=100)
    exit_head: Literal["flat", "mean"] = "flat"


@register("method", "early-exit")
class EarlyExit(Offloading):
    """A network with one exit on the device and its end on the server, after SPINN.

    The idea of Laskaridis et al. (MobiCom 2020), made here: where the largest probability at the
    exit is below ``confidence`` all channels are sent, in 8 bits and coded; the server goes on with
    the source model without its stem. SPINN's choice of the split point and of exits at run time is
    not built. Without a link the exit answers. Nothing adapts.
    """

    Config = EarlyExitConfig
    config: EarlyExitConfig
    conformance_config: ClassVar[dict[str, Any]] = {"epochs": 1, "channels": 10}
    paper = (
        "Laskaridis, Venieris, Almeida, Leontiadis, Lane: SPINN: Synergistic Progressive Inference "
        "of Neural Networks over Device and Cloud, MobiCom 2020 (idea)"
    )
    equation = (
        "offline: min CE(end) + w CE(exit); exit where max_c p_c >= threshold; on the device w "
        "stays what it is"
    )

    @classmethod
    def offline_settings(cls, config: EarlyExitConfig) -> Mapping[str, Any]:
        return {k: v for k, v in shaping(config, LinkConfig).items() if k != "confidence"}

    def wanted(self, local: Tensor) -> Tensor:
        return local.softmax(dim=1).amax(dim=1) < self.config.confidence

    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        c = self.config
        begin = extractor(c, x, c.channels, c.further)
        shape = shape_of(begin, x)
        with torch.no_grad():
            network, _ = without_stem(model, x, begin(x))
        device = DevicePart(
            begin, c.channels, shape, classes, flat=c.exit_head == "flat", sends_all=True,
            quantiser=LinearQuantiser(c.levels),
        ).to(x.device)  # fmt: skip

        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            features = device.features(x)
            assert device.quantiser is not None
            return device.predicted(features), network(device.quantiser(features))

        def loss(x: Tensor, y: Tensor) -> Tensor:
            exit_, end = both(x)
            cross = nn.functional.cross_entropy
            return cross(end, y) + c.exit_loss * cross(exit_, y)

        def train() -> dict[str, Any]:
            data = Source(model, source)
            network.requires_grad_(True).eval()
            parameters = [*device.parameters(), *network.parameters()]
            found = fit(parameters, loss, data, c, c.epochs)
            ends = {
                "exit": accuracy(device, data),
                "end": accuracy(lambda x: both(x)[1], data),
            }
            return {"loss": found, **ends}

        parts = {"device": device, "remote": network}
        settings = self.offline_settings(c)
        facts = made_offline("early-exit", parts, train, model, source, settings, Path(__file__))
        return made(device, network, c.coding, facts)
