"""The tasks: labels, outputs, losses, units and metrics against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score
from tagged_gpu import tagged_gpu
from torch import Tensor
from torch.nn import functional as F

from bench import registry
from bench.contracts.task import Task, make_task
from bench.errors import BenchError

NAMES = sorted(registry.entries("task"))
CLASSES, N = 4, 5


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def sample(name: str, draw: torch.Generator) -> tuple[Any, Tensor, Tensor, Tensor]:
    """Inputs, outputs, features (width 3) and labels of ``N`` samples."""
    if name in ("token-classification", "generation"):
        mask = torch.arange(6).expand(N, 6) < torch.tensor([[6], [4], [2], [6], [1]])
        y = torch.randint(0, CLASSES, (N, 6), generator=draw).masked_fill(~mask, -100)
        y[0, 1] = -100  # a later piece of a word
        x = {"input_ids": torch.zeros(N, 6).long(), "attention_mask": mask.long()}
        outputs = torch.randn(N, 6, CLASSES, generator=draw)
        return x, outputs, torch.randn(N, 6, 3, generator=draw), y
    if name == "segmentation":
        y = torch.randint(0, CLASSES, (N, 8, 12), generator=draw)
        y[torch.rand(y.shape, generator=draw) < 0.2] = 255
        outputs = torch.randn(N, CLASSES, 4, 6, generator=draw)
        return torch.rand(N, 3, 8, 12), outputs, torch.randn(N, 24, 3, generator=draw), y
    if name == "detection":  # six boxes that do not overlap, each of one class; half are right
        corners = torch.cartesian_prod(torch.arange(3) / 3, torch.arange(2) / 2)
        ends = corners + torch.rand(N, 6, 2, generator=draw) / 10 + 0.2
        boxes = torch.cat([corners.expand(N, 6, 2), ends], dim=2)
        found = torch.randint(0, CLASSES, (N, 6), generator=draw)
        logits = F.one_hot(found, CLASSES) * (7 + torch.rand(N, 6, 1, generator=draw)) - 6
        y = torch.cat([found.unsqueeze(2).float(), boxes], dim=2)
        y[:, ::2, 0] = (y[:, ::2, 0] + 1) % CLASSES
        y[1:, 3:] = -1
        return torch.rand(N, 3, 8, 8), torch.cat([logits, boxes], 2), torch.randn(N, 6, 3), y
    if name == "several-tasks":
        app, mask = torch.tensor([0, 1, 1, 2, 0]), torch.zeros(N, 6, dtype=torch.int64)
        mask[:, 0] = 1
        mask[1, :4] = mask[2, :6] = 1
        y = torch.randint(0, CLASSES, (N, 6), generator=draw).masked_fill(mask == 0, -100)
        outputs = torch.randn(N, 6, CLASSES, generator=draw)
        features = torch.randn(N, 6, 3, generator=draw)
        y = torch.cat([app.unsqueeze(1), y], dim=1)
        y[0, 1] = int(outputs[0, 0].argmax())
        return {"app": app, "unit_mask": mask}, outputs, features, y
    outputs = torch.randn(N, CLASSES, generator=draw)
    y = torch.randint(0, CLASSES, (N,), generator=draw)
    if name == "visual-question-answering":
        y = torch.rand(N, CLASSES, generator=draw)
    return torch.rand(N, 2), outputs, torch.randn(N, 3, generator=draw), y


def scored(task: Task, outputs: Tensor, y: Tensor, batch: int) -> float:
    score = task.score()
    for chosen in torch.arange(len(y)).split(batch):
        score.update(outputs[chosen], y[chosen])
    return score.compute()


@pytest.mark.parametrize("name", NAMES)
def test_what_belongs_to_a_unit_stands_in_one_order(name: str, draw: torch.Generator) -> None:
    x, outputs, features, y = sample(name, draw)
    task = make_task(name)
    task.require_labels(y, N, CLASSES, "here")
    task.require_outputs(tuple(outputs.shape), N, CLASSES, "here")
    assert task.aligned(features, outputs)
    places = task.places(outputs, x)
    units, labels = task.units(outputs, x), task.unit_labels(y, places)
    assert units.shape == (len(labels), CLASSES)
    assert task.unit_features(features, x).shape == (len(labels), 3)
    assert task.pooled(features, x).shape == (N, 3)
    # Predictions put into the shape of labels are labels, of the same units.
    chosen = units.argmax(dim=1)
    packed = task.packed(chosen, places)
    task.require_labels(packed, N, CLASSES, "here")
    assert packed.shape == y.shape
    assert torch.equal(task.unit_labels(packed, places), chosen)
    assert scored(task, outputs, packed, 2) > 0.99 or name == "segmentation"


@pytest.mark.parametrize("name", NAMES)
def test_the_metric_is_of_the_whole_split(name: str, draw: torch.Generator) -> None:
    _, outputs, _, y = sample(name, draw)
    task = make_task(name)
    whole = scored(task, outputs, y, N)
    assert 0 < whole < 1
    assert [scored(task, outputs, y, batch) for batch in (1, 2, 3)] == pytest.approx([whole] * 3)
    assert np.isnan(task.score().compute())


def test_token_accuracy_is_that_of_all_words(draw: torch.Generator) -> None:
    _, outputs, _, y = sample("token-classification", draw)
    known = y != -100
    assert int(known.sum()) == 18
    wanted = accuracy_score(y[known], outputs.argmax(dim=2)[known])
    assert scored(make_task("token-classification"), outputs, y, 2) == pytest.approx(wanted)


def test_mean_iou_equals_scikit_learns(draw: torch.Generator) -> None:
    _, outputs, _, y = sample("segmentation", draw)
    large = F.interpolate(outputs, size=y.shape[1:], mode="bilinear").argmax(dim=1)
    known = y != 255
    wanted = jaccard_score(y[known], large[known], average="macro")
    assert scored(make_task("segmentation"), outputs, y, 2) == pytest.approx(wanted, abs=1e-6)


def test_a_class_that_is_nowhere_does_not_lower_the_mean_iou() -> None:
    outputs = F.one_hot(torch.tensor([[[0, 0], [1, 1]]]), 5).movedim(-1, 1).float()
    y = torch.tensor([[[0, 255], [1, 0]]])
    assert scored(make_task("segmentation"), outputs, y, 1) == pytest.approx((0.5 + 0.5) / 2)


def test_the_vqa_score_is_that_of_the_answer_given() -> None:
    outputs = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]])
    y = torch.tensor([[1.0, 0.3, 0.0], [0.6, 1.0, 0.0]])
    assert scored(make_task("visual-question-answering"), outputs, y, 1) == pytest.approx(0.45)


def test_losses_by_hand(draw: torch.Generator) -> None:
    _, outputs, _, y = sample("token-classification", draw)
    known = y != -100
    log_p = outputs.log_softmax(dim=2)
    wanted = -sum(float(log_p[i, t, y[i, t]]) for i, t in known.nonzero().tolist()) / 18
    assert float(make_task("token-classification").loss(outputs, y)) == pytest.approx(wanted)
    _, outputs, _, y = sample("visual-question-answering", draw)
    p = outputs.double().sigmoid()
    each = -(y * p.log() + (1 - y) * (1 - p).log())
    loss = make_task("visual-question-answering").loss(outputs, y, label_smoothing=0.1)
    assert float(loss) == pytest.approx(float(each.sum(dim=1).mean()), rel=1e-5)
    _, outputs, _, y = sample("segmentation", draw)
    large = F.interpolate(outputs, size=y.shape[1:], mode="bilinear").log_softmax(dim=1)
    of = [float(large[i, y[i, r, c], r, c]) for i, r, c in (y != 255).nonzero().tolist()]
    assert float(make_task("segmentation").loss(outputs, y)) == pytest.approx(-sum(of) / len(of))


@pytest.mark.parametrize("name", NAMES)
def test_a_student_loses_least_to_itself(name: str, draw: torch.Generator) -> None:
    x, outputs, _, _ = sample(name, draw)
    task = make_task(name)
    least = float(task.distillation_loss(outputs, outputs, x))
    noise = torch.randn(outputs.shape, generator=draw)
    if name == "detection":
        noise[..., -4:] = 0  # boxes stay boxes
    assert float(task.distillation_loss(outputs + noise, outputs, x)) > least


def test_padding_changes_nothing_that_a_method_acts_on(draw: torch.Generator) -> None:
    x, outputs, features, _ = sample("token-classification", draw)
    task = make_task("token-classification")
    padding = ~x["attention_mask"].bool()
    other = outputs.masked_fill(padding.unsqueeze(-1), 99.0)
    assert torch.equal(task.units(other, x), task.units(outputs, x))
    assert torch.equal(
        task.pooled(features.masked_fill(padding.unsqueeze(-1), 99.0), x),
        task.pooled(features, x),
    )
    assert float(task.distillation_loss(other, outputs, x)) == pytest.approx(
        float(task.distillation_loss(outputs, outputs, x))
    )


@pytest.mark.parametrize("name", NAMES)
def test_present_classes_are_those_that_labels_name(name: str, draw: torch.Generator) -> None:
    x, outputs, _, _ = sample(name, draw)
    task = make_task(name)
    places = task.places(outputs, x)
    units = len(task.units(outputs, x))
    labels = torch.tensor([1, 3]).repeat(units)[:units]
    assert task.present(task.packed(labels, places)) == {1, 3}


@pytest.mark.parametrize("name", NAMES)
def test_sample_labels_are_labels_of_all_classes(name: str, draw: torch.Generator) -> None:
    x, outputs, _, _ = sample(name, draw)
    task = make_task(name)
    made = task.sample_labels(outputs, x, CLASSES)
    task.require_labels(made, N, CLASSES, "here")
    assert task.present(made) == set(range(CLASSES))
    assert task.loss(outputs, made).isfinite()


WRONG_LABELS = [
    ("classification", torch.tensor([0, 4]), "labels from 0 to 4; 4 classes"),
    ("token-classification", torch.tensor([0, 1]), r"labels of shape \(2,\), not \(2, \*\)"),
    ("token-classification", torch.full((2, 3), -100), "no label that counts"),
    ("token-classification", torch.tensor([[0, -1]] * 2), "from -1 to 0.*-100 does not count"),
    ("segmentation", torch.zeros(2, 3).long(), r"not \(2, \*, \*\)"),
    ("segmentation", torch.full((2, 3, 3), 7), "labels from 7 to 7.*255 does not count"),
    ("visual-question-answering", torch.zeros(2).long(), "give scores as torch.float32"),
    ("visual-question-answering", torch.zeros(2, 3), r"not \(2, 4\) = \(questions, answers\)"),
    ("visual-question-answering", torch.full((2, 4), 2.0), r"scores from 2 to 2, not in \[0, 1\]"),
    ("generation", torch.zeros(2, 3), "labels of type torch.float32"),
    ("detection", torch.zeros(2, 3, 5).long(), "give classes and boxes as torch.float32"),
    ("detection", torch.zeros(2, 5), r"not \(2, \*, 5\) = \(samples, boxes, class and edges\)"),
    ("detection", torch.full((2, 3, 5), -1.0), "no sample has a box"),
    ("detection", torch.tensor([[[4, 0, 0, 1, 1.0]]] * 2), "labels from 4 to 4; 4 classes"),
    ("detection", torch.tensor([[[0.5, 0, 0, 1, 1]]] * 2), "labels from 0.5 to 0.5; 4 classes"),
    ("detection", torch.tensor([[[0, 0.5, 0, 0.5, 1]]] * 2), "boxes that are empty or leave"),
    ("detection", torch.tensor([[[0, 0, 0, 64, 64.0]]] * 2), "boxes that are empty or leave"),
]


@pytest.mark.parametrize(("name", "y", "complaint"), WRONG_LABELS)
def test_labels_of_another_kind_are_named(name: str, y: Tensor, complaint: str) -> None:
    with pytest.raises(BenchError, match=f"domain 'a'.*{complaint}"):
        make_task(name).require_labels(y, 2, 4, "domain 'a'")


@pytest.mark.parametrize(
    ("name", "shape", "complaint"),
    [
        ("token-classification", (2, 6), "not class numbers"),
        ("token-classification", (2, 6, 5), r"not \(2, \*, 4\) = \(samples, tokens, classes\)"),
        ("segmentation", (2, 8, 8), "not class numbers"),
        ("segmentation", (2, 8, 8, 4), r"not \(2, 4, \*, \*\)"),
        ("visual-question-answering", (2,), r"not \(2, 4\)"),
        ("detection", (2, 9), "not class numbers"),
        ("detection", (2, 9, 4), r"not \(2, \*, 8\) = \(samples, cells, classes and 4 edges\)"),
    ],
)
def test_outputs_of_another_shape_are_named(
    name: str, shape: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(BenchError, match=complaint):
        make_task(name).require_outputs(shape, 2, 4, "here")


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(BenchError, match=r"segmentatoin.*did you mean 'segmentation'"):
        make_task("segmentatoin")


@pytest.mark.parametrize("name", NAMES)
def test_a_score_takes_outputs_and_labels_that_are_on_a_gpu(
    name: str, draw: torch.Generator
) -> None:
    _, outputs, _, y = sample(name, draw)
    expected = scored(make_task(name), outputs, y, 2)
    with tagged_gpu():
        found = scored(make_task(name), outputs.to("cuda"), y.to("cuda"), 2)
    assert found == expected
