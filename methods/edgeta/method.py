"""EdgeTA for domain shifts: each domain's proxy is retrained by feature alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from bench import DomainView, FoundationModel, Window, register

from ..feature_alignment import FeatureAlignmentConfig
from .config import EdgeTAConfig
from .proxies import ProxyMethod
from .retraining import ProxyAlignment


@register("method", "edgeta")
class EdgeTA(ProxyMethod):
    """Proxies of the neurons that a domain needs, retrained and fed back, with defects mended.

    For each domain the knowledge base is sliced to the neurons that are important for a batch of
    it; the proxy is retrained by feature alignment (source cross-entropy + multi-kernel
    MMD); then W_kb = (W_kb + W_proxy) / 2 on the kept neurons, W_fm += alpha_1 I^T dW_kb,
    W_kb += alpha_2 I dW_fm, from which the next domain starts. The attention's output layer, which
    no proxy trains, stays; with ``model_feedback: replace`` this last step moves it too.
    Between domains the last proxy predicts. Model, knowledge base, index and proxy are in memory.

    This is the paper's algorithm with the defects of its release mended; ``edgeta-faithful`` has
    them. The release is followed where the paper's text is not public.
    """

    Config = EdgeTAConfig
    config: EdgeTAConfig
    needs = ("source_data",)
    equation = (
        "proxy: CE(source) + w MMD^2;  W_kb = (W_kb + W_proxy) / 2,  W_fm += a1 I^T dW_kb,  "
        "W_kb += a2 I dW_fm"
    )

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.source = source

    def retrain(self, domain: DomainView, window: Window) -> bool:
        c = self.config
        # An attribute while it lasts: its optimizer is in the device's memory.
        settings = FeatureAlignmentConfig(
            learning_rate=c.learning_rate, epochs=c.passes(domain), mmd_weight=c.mmd_weight
        )
        self.retraining = ProxyAlignment(settings, c.trained_share, c.selector, c.qkv_bias)
        self.retraining.prepare(self.model, self.source)
        self.retraining.adapt(domain, window)
        trained = bool(self.retraining.optimizer.state)
        del self.retraining
        return trained

    def state(self) -> dict[str, Any]:
        return {**super().state(), "source": self.source.rng_state}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.source.rng_state = state["source"]


class ReleasedConfig(EdgeTAConfig):
    """`EdgeTAConfig` with the release's choices (docs/explanation/edgeta-release-defects.md)."""

    epochs: int = Field(3, ge=1, le=100)
    iterations: int | None = Field(100, ge=1, le=100)
    qkv_bias: bool = False
    importance: Literal["mean", "first", "entropy"] = "first"
    kb_to_fm: float = Field(1.0, ge=0, le=1)
    fm_to_kb: float = Field(1.0, ge=0, le=1)
    model_feedback: Literal["change", "replace"] = "replace"
    max_residual: float | None = Field(None, gt=0, le=1000)
    feedback_biases: bool = False
    selection: Literal["last", "best"] = "best"
    matched: bool = False
    lora_schedule: Literal["constant", "linear"] = "linear"
    lora_in_feedback: bool = False
    index: Literal["sparse", "dense"] = "dense"
    gate_l1_of: Literal["sample", "batch"] = "batch"


@register("method", "edgeta-faithful")
class EdgeTAFaithful(EdgeTA):
    """EdgeTA as released: neurons cut apart from what they meet, a dense index, one sample.

    The release is a copy of the authors' code inside LINC-BIT/MPOptimizer (``Big_model``). Its
    rates of the feedback are those of image classification, 1 and 1, and a domain has 100
    iterations, here in whole passes, there of batches drawn with replacement.

    What still differs: query and key rows of the cut knowledge base are multiplied by (new width /
    old width)^(1/4) where the release keeps the weights and the old scale of the scores (the
    outputs are equal, the steps of training are not); ``lora_rank`` is 8 where the release has an
    eighth of a layer's width; learning rates and numbers of offline steps are those of a small
    model; the models of several applications are averaged at once, not one after another (W10).
    """

    Config = ReleasedConfig
    conformance_config: ClassVar[dict[str, Any]] = {
        "lora_steps": 20, "kb_steps": 100, "index_steps": 100, "iterations": 12,
    }  # fmt: skip
