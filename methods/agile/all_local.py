"""All local: a network small enough for the device, and no server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from bench import DomainView, FoundationModel, register

from .config import AdaptConfig, RecipeConfig, shaping
from .networks import DevicePart
from .offloading import Made, Offloading
from .split import extractor, shape_of
from .training import Source, accuracy, fit, made_offline


class AllLocalConfig(RecipeConfig, AdaptConfig):
    """Settings of the small network beside those of the recipe and of adaptation.

    ``further``: separable layers behind the two of the extractor; ``epochs``: more than of those
    that begin with the source model's weights.
    """

    epochs: int = Field(40, ge=1, le=10_000)
    further: int = Field(6, ge=0, le=64)


@register("method", "all-local")
class AllLocal(Offloading):
    """A small network of separable convolutions on the device alone, in the place of MCUNet.

    MCUNet (Lin et al., NeurIPS 2020) searches a network for a microcontroller; this one is not
    searched. It is trained on the source by the cross-entropy. Under a shift its head adapts by the
    entropy of the prediction, as that of agile-nn.
    """

    Config = AllLocalConfig
    config: AllLocalConfig
    family = "PEFT"
    conformance_config: ClassVar[dict[str, Any]] = {"epochs": 1, "channels": 10, "further": 1}
    paper = "none: the reference without a server; MCUNet (Lin et al., NeurIPS 2020) in its study"
    equation = "offline: min CE(source); on the device: min over the head: mean_i H(p_i)"

    @classmethod
    def offline_settings(cls, config: AllLocalConfig) -> Mapping[str, Any]:
        return shaping(config, AdaptConfig)

    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        c = self.config
        begin = extractor(c, x, c.channels, c.further)
        device = DevicePart(begin, c.channels, shape_of(begin, x), classes).to(x.device)

        def train() -> dict[str, Any]:
            data = Source(model, source)
            loss = fit(
                device.parameters(), lambda x, y: nn.functional.cross_entropy(device(x), y), data,
                c, c.epochs,
            )  # fmt: skip
            return {"loss": loss, "local": accuracy(device, data)}

        settings = self.offline_settings(c)
        facts = made_offline(
            "all-local", {"device": device}, train, model, source, settings, Path(__file__)
        )
        return Made(device, None, None, facts)
