"""What is recorded beside a task's metric, against scikit-learn, torchmetrics and sums by hand."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import sacrebleu
import torch
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error
from torchmetrics.functional.text import squad

from bench import BenchError, MetricFacts, Task
from bench.contracts.protocol import protocol_config
from bench.contracts.task import make_task
from bench.records.record import Metric, Record
from bench.run.evaluator import Evaluator
from bench.testing import LearningMethod, run_method

SAMPLE = Path(__file__).parent.parent / "records" / "samples" / "schema-1.json"


def further(task: str, outputs: Tensor, y: Tensor, batch: int = 7) -> dict[str, float]:
    score = make_task(task).score()
    assert score.further() == {}
    for chosen in torch.arange(len(y)).split(batch):
        score.update(outputs[chosen], y[chosen])
    return score.further()


@pytest.mark.parametrize(("n", "classes", "scale"), [(1, 2, 1.0), (50, 3, 3.0), (200, 12, 0.5)])
def test_of_classes(n: int, classes: int, scale: float) -> None:
    draw = torch.Generator().manual_seed(n)
    outputs = scale * torch.randn(n, classes, generator=draw)
    y = torch.randint(0, max(classes - 1, 1), (n,), generator=draw)  # one class is in no label
    found = further("classification", outputs, y)
    chosen = outputs.argmax(dim=1)
    error = multiclass_calibration_error(outputs.softmax(dim=1), y, classes, n_bins=15)
    assert found == {
        "macro-f1": pytest.approx(f1_score(y, chosen, average="macro")),
        "calibration-error": pytest.approx(float(error), abs=1e-6),
        "commonest-class": max(map(y.tolist().count, range(classes))) / n,
    }


def test_of_words_padding_does_not_count() -> None:
    draw = torch.Generator().manual_seed(1)
    outputs = torch.randn(9, 6, 4, generator=draw)
    y = torch.randint(0, 4, (9, 6), generator=draw)
    y[torch.rand(y.shape, generator=draw) < 0.3] = -100
    known = y != -100
    found = further("token-classification", outputs, y, batch=2)
    wanted = f1_score(y[known], outputs.argmax(dim=2)[known], average="macro")
    assert found["macro-f1"] == pytest.approx(wanted)
    of_words = multiclass_calibration_error(outputs[known].softmax(dim=1), y[known], 4, n_bins=15)
    assert found["calibration-error"] == pytest.approx(float(of_words), abs=1e-6)


def test_of_pixels() -> None:
    draw = torch.Generator().manual_seed(2)
    outputs = torch.randn(3, 4, 8, 8, generator=draw)
    y = torch.randint(0, 4, (3, 8, 8), generator=draw)
    y[:, 0] = 255
    known = y != 255
    wanted = accuracy_score(y[known], outputs.argmax(dim=1)[known])
    most = max(map(y[known].tolist().count, range(4)))
    assert further("segmentation", outputs, y, 2) == {
        "pixel-accuracy": pytest.approx(wanted),
        "commonest-class": pytest.approx(most / len(y[known]) / 4),
    }


def test_of_next_tokens() -> None:
    draw = torch.Generator().manual_seed(3)
    outputs = torch.randn(5, 6, 9, generator=draw)
    y = torch.randint(0, 9, (5, 6), generator=draw)
    y[:, :2] = -100
    mean = float(F.cross_entropy(outputs.flatten(0, 1), y.flatten(), ignore_index=-100))
    found = further("generation", outputs, y, 2)
    assert found == {
        "token-cross-entropy": pytest.approx(mean, rel=1e-5),
        "perplexity": pytest.approx(math.exp(mean), rel=1e-5),
        "commonest-class": max(map(y[:, 2:].flatten().tolist().count, range(9))) / 20,
    }
    sure = further("generation", 1e4 * outputs, y)
    assert set(sure) == {"token-cross-entropy", "commonest-class"}  # the exponential is no number


# --- generated answers ----------------------------------------------------------------------

END, WORDS = 3, {10: "take", 11: "it", 12: "twice", 13: "a", 14: "day", 15: "with", 16: "water"}
ANSWERS = [[10, 11, 12, 13, 14, END], [10, 11, 15, 16, END], [16, 14, END]]
TOLD = [[10, 11, 12, 13, 14, END], [10, 11, 15, 13, 16, END], [14, 16, 16, 16, 16, 16]]
ASKED, LENGTH = (4, 2, 5), 10


def dialogues() -> tuple[dict[str, Tensor], Tensor]:
    """Three questions with their answers, and the labels of these."""
    ids, y = torch.zeros(3, LENGTH).long(), torch.full((3, LENGTH), -100)
    for row, (asked, answer) in enumerate(zip(ASKED, ANSWERS, strict=True)):
        ids[row, :asked] = 7
        ids[row, asked : asked + len(answer)] = torch.tensor(answer)
        y[row, asked - 1 : asked - 1 + len(answer)] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}, y


def tell(x: Any) -> Tensor:
    """A model that tells `TOLD`, and looks at what has been told so far."""
    ids, mask = x["input_ids"], x["attention_mask"]
    outputs = torch.zeros(*ids.shape, 20)
    for row, (asked, told) in enumerate(zip(ASKED, TOLD, strict=True)):
        known = int(mask[row].sum()) - asked
        assert ids[row].tolist() == ([7] * asked + told[:known] + [0] * LENGTH)[:LENGTH]
        for i, word in enumerate(told):
            outputs[row, asked - 1 + i, word] = 1.0
    return outputs


def test_answers_are_generated_up_to_their_end() -> None:
    x, y = dialogues()
    before = {name: part.clone() for name, part in x.items()}
    made = make_task("generation").generate(tell, x, y, torch.arange(3))
    rows = [row[row != -100].tolist() for row in made]
    assert rows == TOLD
    assert made[0, :3].tolist() == [-100] * 3
    assert all(torch.equal(x[name], before[name]) for name in x)


def test_generated_answers_are_scored_as_texts() -> None:
    x, y = dialogues()
    score = make_task("generation").score()
    score.update(F.one_hot(y.clamp_min(0), 20).float(), y)
    made = make_task("generation").generate(tell, x, y, torch.arange(3))
    for chosen in torch.arange(3).split(2):
        score.update_generated(made[chosen], y, chosen)
    texts = [
        [" ".join(WORDS[w] for w in row if w != END) for row in rows] for rows in (TOLD, ANSWERS)
    ]
    bleu = sacrebleu.corpus_bleu(texts[0], [texts[1]], tokenize="none")
    rouge = RougeScorer(["rougeL"])
    each = [rouge.score(w, t)["rougeL"].fmeasure for t, w in zip(*texts, strict=True)]
    assert each == pytest.approx([1.0, 2 * 4 / (5 + 4), 2 * 1 / (6 + 2)])
    found = score.further()
    assert found["bleu-4"] == pytest.approx(bleu.score / 100)
    assert 0.1 < found["bleu-4"] < 1
    assert found["rouge-l"] == pytest.approx(sum(each) / 3)
    # The second answer differs in an article, which SQuAD's normalisation leaves out of words
    assert found["exact-match"] == pytest.approx(1 / 3)
    assert squad_exact(*texts) == pytest.approx(2 / 3)


def squad_exact(told: list[str], wanted: list[str]) -> float:
    """Exact match by torchmetrics' SQuAD, normalised as published."""
    found = squad(
        [{"id": str(i), "prediction_text": text} for i, text in enumerate(told)],
        [
            {"id": str(i), "answers": {"text": [text], "answer_start": [0]}}
            for i, text in enumerate(wanted)
        ],
    )
    return float(found["exact_match"]) / 100


def test_exact_match_of_tokens_is_squads_of_their_numbers() -> None:
    """Numbers have no case, punctuation or article: both count the same."""
    torch.manual_seed(0)
    y = torch.randint(1, 4, (200, 4))
    y[:, -2:] = -100
    made = torch.randint(1, 4, (200, 4))
    made[:, -2:] = -100
    score: Any = make_task("generation").score()
    score.update(F.one_hot(y.clamp_min(0), 9).float(), y)
    score.update_generated(made, y, torch.arange(200))
    end = int(y[0, 1])
    rows = [([t for t in a if t != end], [t for t in b if t != end])
            for a, b in zip(made[:, :2].tolist(), y[:, :2].tolist(), strict=True)]  # fmt: skip
    by_hand = sum(a == b for a, b in rows) / 200
    found = score.further()["exact-match"]
    assert found == pytest.approx(by_hand)
    assert found == pytest.approx(squad_exact(score._told, score._wanted))
    assert 0.05 < found < 0.5


def test_the_end_is_not_that_of_an_answer_that_was_cut_off() -> None:
    """The labels of data sets of questions never reach the last place: no token follows there."""
    y = torch.tensor([[-100, 5, 6, 7, -100], [-100, 8, 3, -100, -100], [4, 3, -100, -100, -100]])
    score: Any = make_task("generation").score()
    score.update(F.one_hot(y.clamp_min(0), 9).float(), y)
    score.update_generated(y, y, torch.arange(3))
    assert score._told == ["5 6 7", "8", "4"]


def test_an_answer_that_is_cut_off_has_no_end() -> None:
    y = torch.tensor([[-100, 5, 6]])
    x = {"input_ids": torch.tensor([[7, 8, 5]]), "attention_mask": torch.ones(1, 3).long()}
    outputs = F.one_hot(torch.tensor([[1, 2, 6]]), 9)
    made = make_task("generation").generate(lambda _: outputs, x, y, torch.tensor([0]))
    assert made.tolist() == [[-100, 2, 6]]


def test_other_tasks_generate_nothing() -> None:
    with pytest.raises(BenchError, match="generate: models of task Classification give no text"):
        run_method(LearningMethod(), generate=4)


def test_without_the_libraries_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        BenchError, match=r"need sacrebleu: pip install 'edge-adaptation-bench\[text"
    ):
        make_task("generation").require_generation()


def test_cells_without_generation_are_what_they_were() -> None:
    plain = protocol_config({"name": "periodic"}).model_dump()
    assert "generate" not in plain
    assert protocol_config({"name": "periodic", "generate": 0}).model_dump() == plain
    assert protocol_config({"name": "periodic", "generate": 8}).model_dump()["generate"] == 8


# --- the commonest class ----------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "token-classification", "segmentation",
                                  "visual-question-answering", "generation"])  # fmt: skip
def test_no_constant_answer_scores_more_than_the_commonest_class_is_said_to(task: str) -> None:
    """What the task's own metric gives for each class as the answer to everything."""
    classes, draw = 4, torch.Generator().manual_seed(0)
    shape = {"classification": (30,), "segmentation": (3, 5, 6)}.get(task, (6, 5))
    y = torch.multinomial(
        torch.tensor([0.2, 0.5, 0.3, 0.0]), math.prod(shape), True, generator=draw
    )
    y = y.reshape(shape)
    if task == "visual-question-answering":
        y, shape = torch.rand(9, classes, generator=draw) * torch.tensor([0.2, 1, 0.5, 0.9]), (9,)
    elif task != "classification":
        y[0, 0] = 255 if task == "segmentation" else -100
    axis = 1 if task == "segmentation" else -1
    scores, told = [], set()
    for answer in range(classes):
        score = make_task(task).score()
        outputs = F.one_hot(torch.full(shape, answer), classes).float().movedim(-1, axis)
        for half in (slice(0, 2), slice(2, None)):
            score.update(outputs[half], y[half])
        scores.append(score.compute())
        told.add(score.further()["commonest-class"])
    assert len(told) == 1
    assert max(scores) == pytest.approx(told.pop(), abs=1e-7)


# --- in records and reports ---------------------------------------------------------------


def test_a_run_records_them_for_each_domain() -> None:
    result = run_method(LearningMethod(), reset="never", window_s=1e9)
    assert [(m.name, m.higher_is_better) for m in result.further_metrics] == [
        ("macro-f1", True),
        ("calibration-error", False),
        ("commonest-class", True),
    ]
    for stage in result.stages:
        for when in ("before", "after", "final"):
            for metric in result.further_metrics:
                value = stage.further(metric.name, when)
                assert value is not None
                assert 0 <= value <= 1
    last = result.stages[-1]
    assert last.further("macro-f1", "final") == last.further("macro-f1", "after")
    first = [result.stages[0].further("calibration-error", when) for when in ("before", "after")]
    assert first[0] != first[1]


def test_a_mean_is_over_all_domains_or_not_known() -> None:
    results = Record.model_validate(json.loads(SAMPLE.read_text())).results
    assert results is not None
    for i, domain in enumerate(results.domains):
        domain.measure("perplexity_after", 2.0 + i)
    assert results.further("perplexity") == pytest.approx(2 + (len(results.domains) - 1) / 2)
    results.domains[-1].measure("perplexity_after", None)
    assert results.further("perplexity") is None


def test_what_is_not_defined_any_more_is_taken_back() -> None:
    stage = run_method(LearningMethod(), window_s=1e9).stages[0]
    stage.measure("macro_f1_final", None)
    assert stage.further("macro-f1", "final") is None
    assert stage.further("macro-f1", "after") is not None


def test_a_metric_that_is_not_declared_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task("classification")
    monkeypatch.setattr(type(task), "further_metrics", ())
    evaluator = cast("Any", Evaluator.__new__(Evaluator))
    evaluator._task, evaluator._scorer, evaluator._generate = task, task.score, 0
    evaluator._predict = lambda split, where, score, priced: score.update(
        torch.eye(2), torch.tensor([0, 1])
    )
    with pytest.raises(BenchError, match="'calibration-error', which is none of its further"):
        evaluator._pass(None, "here", False)


def test_methods_are_compared_by_a_share() -> None:
    with pytest.raises(BenchError, match=r"metric 'loss': .* make it one of further_metrics"):

        class _(Task):
            metric = MetricFacts("loss", "loss", "nats", higher_is_better=False)


def test_a_metric_without_a_bound_keeps_its_record() -> None:
    metric = Metric(name="perplexity", title="perplexity", unit="", highest=None)
    assert Metric.model_validate_json(metric.model_dump_json()) == metric
