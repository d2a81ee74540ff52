"""Text generation, trained and scored as next-token prediction."""

from __future__ import annotations

from bench.contracts.task import MetricFacts
from bench.registry import register
from bench.tasks.token_classification import TokenClassification


@register("task", "generation")
class Generation(TokenClassification):
    """Outputs (n, tokens, vocabulary): the next token of each; labels with -100 outside answers.

    Labels are aligned with the outputs: ``y[:, t]`` is the token that follows ``input_ids[:, t]``.
    Inputs hold the answers, which a prediction of the next token may not look at: a run whose
    outputs depend on later tokens ends. Methods without labels do not declare this task.
    """

    causal = True
    metric = MetricFacts("next-token-accuracy", "next-token accuracy")
