"""EdgeTA as it was released, defects included."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench import register

from .config import EdgeTAConfig
from .method import EdgeTA


class ReleasedConfig(EdgeTAConfig):
    """As `EdgeTAConfig`, with the release's choices: see the method's file for what they do."""

    importance: Literal["mean", "first", "entropy"] = "first"
    kb_to_fm: float = Field(1.0, ge=0, le=1)
    fm_to_kb: float = Field(1.0, ge=0, le=1)
    feedback_biases: bool = False
    matched: bool = False
    lora_in_feedback: bool = False
    index: Literal["sparse", "dense"] = "dense"
    max_residual: float | None = Field(None, gt=0, le=1000)


@register("method", "edgeta-faithful")
class EdgeTAFaithful(EdgeTA):
    """EdgeTA as released: neurons cut apart from what they meet, a dense index, one sample.

    The release is a copy of the authors' code inside LINC-BIT/MPOptimizer (``Big_model``). Its
    rates of the feedback are those of image classification, 1 and 1.
    """

    Config = ReleasedConfig
    family = "UDA"
    shifts = ("domain",)
    protocols = ("periodic",)
    needs = ("source_data",)
    provenance = "published"
    paper = "Zhang et al.: EdgeTA: Neuron-Grained Scaling of Foundation Models, IEEE TMC 2025"
    equation = (
        "proxy: CE(source) + w MMD^2;  W_kb = (W_kb + W_proxy) / 2,  W_fm += a1 I^T dW_kb,  "
        "W_kb = a2 I W_fm + (1 - a2) W_kb"
    )
    makes_own_model = True
