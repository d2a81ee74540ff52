"""Supervised fine-tuning of all weights on the target's labels: the upper bound."""

from __future__ import annotations

from bench import register, tunable

from ._supervised import SupervisedConfig, SupervisedMethod


class FineTuneConfig(SupervisedConfig):
    """Settings of `SupervisedConfig`; a lower ``learning_rate``, as all weights are trained."""

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)


@register("method", "fine-tune")
class FineTune(SupervisedMethod):
    """Supervised upper bound: cross-entropy on target labels, all weights, AdamW.

    Also the naive baseline of continual learning: nothing protects earlier domains.
    """

    Config = FineTuneConfig
    family = "reference"
    paper = "none: the supervised reference of domain-adaptation studies"
    equation = "min over all weights: CE(target)"
