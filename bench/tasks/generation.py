"""Text generation, trained and scored as next-token prediction."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn

from bench.contracts.data import Inputs, on_device
from bench.contracts.task import MetricFacts, Score
from bench.errors import BenchError
from bench.registry import register
from bench.tasks.class_scores import COMMONEST_CLASS
from bench.tasks.token_classification import IGNORED, TokenClassification, require_aligned

CROSS_ENTROPY = MetricFacts(
    "token-cross-entropy", "token cross-entropy", "nats", False, highest=math.inf
)
PERPLEXITY = MetricFacts("perplexity", "perplexity", "", False, lowest=1.0, highest=math.inf)
BLEU = MetricFacts("bleu-4", "BLEU-4")
ROUGE = MetricFacts("rouge-l", "ROUGE-L")
EXACT = MetricFacts("exact-match", "exact match")

LARGEST = 1e18
"""Perplexities up to this are recorded, and can be shown."""


class NextTokenScore(Score):
    """The share of answers' tokens that the highest logit meets.

    ``token-cross-entropy``: the mean of -ln p over these tokens; ``perplexity``: its exponential,
    missing where that is no finite number. ``commonest-class``: the share of the most frequent
    token. Of generated answers, where there are any, ``bleu-4`` by sacrebleu (of all together,
    smoothed as there), ``rouge-l`` by rouge-score (the mean F1) and ``exact-match``, the share of
    answers that are those wanted, on tokens as they are, the end left out. SQuAD's exact match
    (Rajpurkar et al., EMNLP 2016) also takes words for equal that differ in case, punctuation and
    articles, which numbers of tokens do not show: this one is never above it.
    """

    def __init__(self) -> None:
        self.hits = self.count = 0
        self._lost = 0.0
        self._seen: list[Tensor] = []
        self._told: list[str] = []
        self._wanted: list[str] = []

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """``outputs``: (n, tokens, vocabulary); ``y``: (n, tokens)."""
        require_aligned(outputs, y)
        counted = y != IGNORED
        outputs, y = outputs[counted].float(), y[counted]
        self.hits += int((outputs.argmax(dim=1) == y).sum())
        self.count += len(y)
        lost = nn.functional.cross_entropy(outputs, y, reduction="none")
        self._lost += float(lost.double().sum())
        self._seen.append(y)

    def compute(self) -> float:
        return self.hits / self.count if self.count else float("nan")

    def further(self) -> dict[str, float]:
        if not self.count:
            return {}
        mean = self._lost / self.count
        known = {CROSS_ENTROPY.name: mean}
        known[COMMONEST_CLASS.name] = int(torch.cat(self._seen).bincount().max()) / self.count
        if mean < math.log(LARGEST):
            known[PERPLEXITY.name] = math.exp(mean)
        if self._told:
            known |= text_metrics(self._told, self._wanted)
        return known

    def update_generated(self, generated: Tensor, y: Tensor, chosen: Tensor) -> None:
        end = _end(y)
        self._told += _texts(generated, end)
        self._wanted += _texts(y[chosen], end)


def text_metrics(told: list[str], wanted: list[str]) -> dict[str, float]:
    """BLEU-4, ROUGE-L and exact match of texts whose words are divided by spaces, as shares."""
    import sacrebleu
    from rouge_score.rouge_scorer import RougeScorer

    bleu = sacrebleu.corpus_bleu(told, [wanted], tokenize="none", force=True).score
    rouge = RougeScorer(["rougeL"])
    each = [rouge.score(w, t)["rougeL"].fmeasure for t, w in zip(told, wanted, strict=True)]
    same = sum(t == w for t, w in zip(told, wanted, strict=True))
    return {
        BLEU.name: min(bleu / 100, 1.0), ROUGE.name: sum(each) / len(each),
        EXACT.name: same / len(told),
    }  # fmt: skip


def _end(y: Tensor) -> int | None:
    """The number that ends answers: the last label of those that are not cut off by the length.

    The last place of all has no next token, and so no label; one before it must be free as well.
    """
    for row in y[(y[:, -2:] == IGNORED).all(dim=1)]:
        if len(known := row[row != IGNORED]):
            return int(known[-1])
    return None


def _texts(labels: Tensor, end: int | None) -> list[str]:
    """The numbers of labels that count as words."""
    rows = [row[row != IGNORED].tolist() for row in labels]
    return [" ".join(str(number) for number in row if number != end) for row in rows]


@register("task", "generation")
class Generation(TokenClassification):
    """Outputs (n, tokens, vocabulary): the next token of each; labels with -100 outside answers.

    Labels are aligned with the outputs: ``y[:, t]`` is the token that follows ``input_ids[:, t]``.
    Inputs hold the answers, which a prediction of the next token may not look at: a run whose
    outputs depend on later tokens ends. Methods without labels do not declare this task.
    """

    causal = True
    metric = MetricFacts("next-token-accuracy", "next-token accuracy")
    further_metrics = (CROSS_ENTROPY, PERPLEXITY, BLEU, ROUGE, EXACT, COMMONEST_CLASS)

    def score(self) -> Score:
        return NextTokenScore()

    def require_generation(self) -> None:
        try:
            for name in ("rouge_score", "sacrebleu"):
                import_module(name)
        except ImportError as error:
            raise BenchError(
                f"generate: BLEU and ROUGE need {error.name}: pip install "
                "'edge-adaptation-bench[text]', or remove it from the protocol"
            ) from error

    def generate(
        self, predict: Callable[[Inputs], Tensor], x: Inputs, y: Tensor, chosen: Tensor
    ) -> Tensor:
        """The most probable token each time, up to the end of an answer or of the length.

        Each token takes a pass over the whole length: nothing is kept of the passes before.
        """
        assert isinstance(x, dict)
        device = x["input_ids"].device
        x = on_device(x, torch.device("cpu"))  # where labels are
        assert isinstance(x, dict)
        end, places = _end(y), torch.arange(y.shape[1])
        y = y[chosen]
        starts = (y != IGNORED).int().argmax(dim=1)
        asked = places <= starts.unsqueeze(1)
        ids, mask = x["input_ids"] * asked, x["attention_mask"] * asked
        made, going = torch.full_like(y, IGNORED), torch.ones(len(y), dtype=torch.bool)
        for place in range(int(starts.min()), y.shape[1]):
            told = on_device({**x, "input_ids": ids, "attention_mask": mask}, device)
            outputs = predict(told)[:, place].cpu()
            at = going & (starts <= place)
            made[at, place] = outputs.argmax(dim=1)[at]
            going &= ~(at & (made[:, place] == end)) if end is not None else going
            if place + 1 < y.shape[1]:
                ids[at, place + 1], mask[at, place + 1] = made[at, place], 1
            if not going.any():
                break
        return made
