"""AgileNN: channels that matter stay on the device, those that compress well are sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench import DomainView, FoundationModel, register

from . import joint
from .config import AdaptConfig, LinkConfig, RecipeConfig, shaping
from .importance import Disorder
from .networks import DevicePart, without_stem
from .offloading import Made, Offloading
from .quantiser import Quantiser
from .split import extractor, made, shape_of
from .training import made_offline


class AgileConfig(RecipeConfig, LinkConfig, AdaptConfig):
    """Settings of AgileNN beside those of the link, of the recipe and of adaptation.

    ``split``: share of the channels that stay; ``rho``: share of the importance that they should
    have; ``balance``: lambda, weight of the cross-entropy against the two losses on importance (the
    paper recommends 0.2 to 0.4, its code has 0.8); ``disorder``: over whole channels as in the
    paper, or each ``element`` as in its code; ``ig_points``: gradients in an integrated gradient,
    2 as in its code; ``levels``: values of a feature that is sent, 8 for 3 bits; ``temperature``: T
    of the combination weight sigmoid(w / T); ``weight_rate``: learning rate of w, which few steps
    at that of the others would not move; ``choose_channels``: the channels that matter most
    often come first before the joint training (Algorithm 1); ``reference_epochs``: of the reference
    network. ``local_loss``: weight of a cross-entropy of the device's prediction alone: 0 as
    published, which leaves that prediction untrained for a time without a link; ``head``: ``mean``,
    the device sees the mean of each channel, as published, or ``flat``, each of its positions.
    """

    split: float = Field(0.2, gt=0, lt=1)
    rho: float = Field(0.8, gt=0, le=1)
    balance: float = Field(0.3, gt=0, le=1)
    disorder: Disorder = "channel"
    ig_points: int = Field(2, ge=2, le=256)
    levels: int = Field(8, ge=2, le=256)
    temperature: float = Field(6.0, ge=1, le=100)
    weight_rate: float = Field(0.1, gt=0, le=10)
    choose_channels: bool = True
    reference_epochs: int = Field(6, ge=1, le=10_000)
    local_loss: float = Field(0.0, ge=0, le=100)
    head: Literal["mean", "flat"] = "mean"

    @model_validator(mode="after")
    def _both_have_channels(self) -> AgileConfig:
        if not 0 < self.kept < self.channels:
            raise ValueError(
                f"split: {self.split:g} of {self.channels} channels leaves {self.kept} on the "
                "device; let both sides have some"
            )
        return self

    @property
    def kept(self) -> int:
        """Channels that stay on the device."""
        return round(self.split * self.channels)


@register("method", "agile-nn")
class AgileNN(Offloading):
    """AgileNN (Huang and Gao, MobiCom 2022): a network split by the importance of features.

    An extractor on the device is trained so that its first channels have most of the importance,
    by integrated gradients of a reference network. A small head on the device sees these; the
    others are quantised, coded and sent to the server's network; the two predictions are added by a
    learned weight. The reference and the server's network begin as the source model without its
    stem, normalization with stored statistics. Under a shift the combination weight and the head
    adapt on the device, by the entropy of the prediction; the paper adapts nothing. Arithmetic is
    float32 here, int8 in the paper.
    """

    Config = AgileConfig
    config: AgileConfig
    family = "PEFT"
    conformance_config: ClassVar[dict[str, Any]] = {
        "epochs": 1, "reference_epochs": 1, "channels": 10,
    }  # fmt: skip
    paper = (
        "Huang, Gao: Real-time Neural Network Inference on Extremely Weak Devices: Agile "
        "Offloading with Explainable AI, MobiCom 2022"
    )
    equation = (
        "offline: min lambda CE(a local + (1 - a) remote) + (1 - lambda) (max(0, rho - |I1|) + "
        "max(0, max I2 - min I1)); on the device: min over a and the local head: mean_i H(p_i)"
    )

    @classmethod
    def offline_settings(cls, config: AgileConfig) -> Mapping[str, Any]:
        return shaping(config, LinkConfig, AdaptConfig)

    def make(self, model: FoundationModel, source: DomainView, x: Tensor, classes: int) -> Made:
        c = self.config
        begin = extractor(c, x, c.channels)
        shape = shape_of(begin, x)
        with torch.no_grad():
            features = begin(x)
        network, stem = without_stem(model, x, features)
        remote, remote_stem = without_stem(model, x, features[:, c.kept :])
        device = DevicePart(
            begin, c.kept, shape, classes, flat=c.head == "flat", quantiser=Quantiser(c.levels),
            weight=0.0, temperature=c.temperature,
        ).to(x.device)  # fmt: skip

        def train() -> dict[str, Any]:
            with sdpa_kernel(SDPBackend.MATH):  # others cannot be differentiated twice
                return joint.train_jointly(
                    c, model, device, network, stem, remote, remote_stem, source
                )

        assert joint.__file__ is not None
        parts = {"device": device, "remote": remote}
        facts = made_offline(
            "agile-nn", parts, train, model, source, self.offline_settings(c), Path(joint.__file__)
        )
        return made(device, remote, c.coding, facts)
