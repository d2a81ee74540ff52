"""Text generation, trained and scored as next-token prediction."""

from __future__ import annotations

import math

from torch import Tensor, nn

from bench.contracts.task import MetricFacts, Score
from bench.registry import register
from bench.tasks.token_classification import IGNORED, TokenClassification, require_aligned

CROSS_ENTROPY = MetricFacts(
    "token-cross-entropy", "token cross-entropy", "nats", False, highest=math.inf
)
PERPLEXITY = MetricFacts("perplexity", "perplexity", "", False, lowest=1.0, highest=math.inf)


class NextTokenScore(Score):
    """The share of answers' tokens that the highest logit meets.

    ``token-cross-entropy``: the mean of -ln p over these tokens; ``perplexity``: its exponential,
    missing where that is no finite number.
    """

    def __init__(self) -> None:
        self.hits = self.count = 0
        self._lost = 0.0

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, tokens, vocabulary); ``y``: (n, tokens)."""
        require_aligned(outputs, y)
        counted = y != IGNORED
        outputs, y = outputs[counted].float(), y[counted]
        self.hits += int((outputs.argmax(dim=1) == y).sum())
        self.count += len(y)
        lost = nn.functional.cross_entropy(outputs, y, reduction="none")
        self._lost += float(lost.double().sum())

    def compute(self) -> float:
        return self.hits / self.count if self.count else float("nan")

    def further(self) -> dict[str, float]:
        if not self.count:
            return {}
        mean = self._lost / self.count
        known = {CROSS_ENTROPY.name: mean}
        if mean < math.log(1e30):
            known[PERPLEXITY.name] = math.exp(mean)
        return known


@register("task", "generation")
class Generation(TokenClassification):
    """Outputs (n, tokens, vocabulary): the next token of each; labels with -100 outside answers.

    Labels are aligned with the outputs: ``y[:, t]`` is the token that follows ``input_ids[:, t]``.
    Inputs hold the answers, which a prediction of the next token may not look at: a run whose
    outputs depend on later tokens ends. Methods without labels do not declare this task.
    """

    causal = True
    metric = MetricFacts("next-token-accuracy", "next-token accuracy")
    further_metrics = (CROSS_ENTROPY, PERPLEXITY)

    def score(self) -> Score:
        return NextTokenScore()
