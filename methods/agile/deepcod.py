"""DeepCOD's idea: the device only codes, the server decodes and does all the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bench import DomainView, FoundationModel, register

from .config import LinkConfig, RecipeConfig, shaping
from .networks import DevicePart, without_stem
from .offloading import Made, Offloading
from .quantiser import Quantiser
from .split import extractor, made, shape_of
from .training import Source, accuracy, fit, made_offline


class DeepcodConfig(RecipeConfig, LinkConfig):
    """Settings of the learned code beside those of the link and of the recipe.

    ``code_channels``: channels that are sent; ``channels``: those that the decoder makes of them;
    ``levels``: values of a feature that is sent, 8 for 3 bits.
    """

    code_channels: int = Field(12, ge=1, le=256)
    levels: int = Field(8, ge=2, le=256)


@register("method", "deepcod")
class Deepcod(Offloading):
    """A learned encoder on the device, decoder and network on the server, after DeepCOD.

    The idea of Yao et al. (SenSys 2020), made here: the encoder is AgileNN's extractor without its
    local channels, the decoder two convolutions before the source model without its stem; both are
    trained together by the cross-entropy, with the same quantiser and coder as AgileNN. The paper's
    own encoder, its loss on sparsity and its performance predictor are not built. Without a link
    there is no prediction. Nothing adapts.
    """

    Config = DeepcodConfig
    config: DeepcodConfig
    answers_alone = False
    conformance_config: ClassVar[dict[str, Any]] = {"epochs": 1, "channels": 10}
    paper = (
        "Yao, Li, Liu, Wang, Liu, Shao, Abdelzaher: Deep Compressive Offloading, SenSys 2020 (idea)"
    )
    equation = "offline: min CE(network(decoder(q(encoder(x))))); on the device w stays what it is"

    @classmethod
    def offline_settings(cls, config: DeepcodConfig) -> Mapping[str, Any]:
        return shaping(config, LinkConfig)

    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        c = self.config
        encoder = extractor(c, x, c.code_channels)
        _, high, wide = shape_of(encoder, x)
        decoder = nn.Sequential(
            nn.Conv2d(c.code_channels, c.channels, 3, 1, 1), nn.ReLU(),
            nn.Conv2d(c.channels, c.channels, 3, 1, 1), nn.ReLU(),
        ).to(x.device)  # fmt: skip
        with torch.no_grad():
            network, _ = without_stem(model, x, decoder(encoder(x)))
        remote = nn.Sequential(decoder, network)
        device = DevicePart(
            encoder, 0, (c.code_channels, high, wide), classes, quantiser=Quantiser(c.levels)
        ).to(x.device)

        def predicted(x: Tensor) -> Tensor:
            assert device.quantiser is not None
            out: Tensor = remote(device.quantiser(device.features(x)))
            return out

        def train() -> dict[str, Any]:
            data = Source(model, source)
            remote.requires_grad_(True).eval()
            parameters = [*device.parameters(), *remote.parameters()]
            loss = fit(
                parameters, lambda x, y: nn.functional.cross_entropy(predicted(x), y), data,
                c, c.epochs,
            )  # fmt: skip
            return {"loss": loss, "together": accuracy(predicted, data)}

        parts = {"device": device, "remote": remote}
        settings = self.offline_settings(c)
        facts = made_offline("deepcod", parts, train, model, source, settings, Path(__file__))
        return made(device, remote, c.coding, facts)
