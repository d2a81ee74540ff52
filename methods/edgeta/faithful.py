"""EdgeTA as it was released, defects included."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench import register

from .config import EdgeTAConfig
from .method import EdgeTA


class ReleasedConfig(EdgeTAConfig):
    """`EdgeTAConfig` with the release's choices (docs/explanation/edgeta-release-defects.md)."""

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
