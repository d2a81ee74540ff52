"""EdgeTA's offline stage alone: what it is worth before anything is adapted."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bench import DomainView, Window, register

from .config import ProxyConfig
from .proxies import ProxyMethod


class OfflineOnlyConfig(ProxyConfig):
    """Settings of `ProxyConfig`; those of retraining and feedback are fixed: there is none."""

    learning_rate: float = Field(0.0, ge=0, le=0)
    epochs: int = Field(0, ge=0, le=0)
    iterations: None = None
    qkv_bias: Literal[True] = True
    feedback: Literal["none"] = "none"
    kb_to_fm: float = Field(0.0, ge=0, le=0)
    fm_to_kb: float = Field(0.0, ge=0, le=0)
    model_feedback: Literal["change"] = "change"
    max_residual: None = None
    feedback_biases: Literal[True] = True


@register("method", "edgeta-offline")
class EdgeTAOffline(ProxyMethod):
    """The control of EdgeTA's offline stage: its proxies are deployed and never retrained.

    For each domain the knowledge base is sliced to the neurons that are important for a batch of
    it, as ``edgeta`` does, and the proxy predicts as it was cut. What ``edgeta`` has above this row
    is adaptation; what this row has above ``source-only`` is the offline stage, which trains on the
    source for longer (``source-longer``). The model and the neuron index are not on the device.
    """

    Config = OfflineOnlyConfig
    config: OfflineOnlyConfig
    family = "reference"
    shifts = ("domain", "class")
    provenance = "chosen-here"
    equation = "no retraining, no feedback: W_kb and W_fm stay what they are"

    def retrain(self, domain: DomainView, window: Window) -> bool:
        return True

    def stored(self) -> Any:
        return self.kb, self.model, self.slices
