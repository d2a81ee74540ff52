"""Distillation: what the student minimises, and that the teacher stays as it is."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from bench.contracts.data import DomainView, Inputs
from bench.contracts.model import FoundationModel, weights_digest
from bench.errors import BenchError
from bench.models.surgery.distillation import distil, rate
from bench.models.surgery.pruning import cut, strongest
from bench.tasks.classification import soft_cross_entropy
from bench.testing import TinyModel

LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def view(x: Inputs, y: torch.Tensor | None = LABELS) -> DomainView:
    return DomainView("source", x, y, 3, torch.Generator().manual_seed(0))


def pair(model: FoundationModel) -> tuple[FoundationModel, FoundationModel]:
    teacher = model.clone()
    cut(model, strongest(model, 2))
    return model, teacher


def test_soft_cross_entropy_by_hand() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 4), torch.randn(3, 4)
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        e, f = torch.tensor(t).exp(), torch.tensor(s).exp()
        total -= sum(float(e[c] / e.sum() * (f[c] / f.sum()).log()) for c in range(4))
    assert float(soft_cross_entropy(student, teacher)) == pytest.approx(total / 3, rel=1e-5)


def test_the_rate_rises_for_a_tenth_of_the_steps_and_falls_to_0() -> None:
    rates = [rate(step, 20) for step in range(21)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    steps = [a - b for a, b in pairwise(rates[2:])]
    assert steps == pytest.approx([1 / 18] * 18)
    assert rates[20] == 0.0
    assert [rate(step, 1) for step in (0, 1)] == [1.0, 0.0]


@torch.no_grad()
def losses(
    student: FoundationModel, teacher: FoundationModel, x: Inputs, y: torch.Tensor = LABELS
) -> tuple[float, float]:
    outputs = student(x)
    return float(student.loss(outputs, y)), float(soft_cross_entropy(outputs, teacher(x)))


def test_the_loss_falls_and_the_teacher_stays(made) -> None:
    model, x = made
    student, teacher = pair(model)
    digest = weights_digest(teacher.module)
    for p in teacher.module.parameters():
        p.requires_grad_(False)
    with torch.no_grad():
        y = teacher(x).argmax(dim=1)
    before = losses(student, teacher, x, y)
    torch.manual_seed(0)
    distil(student, teacher, view(x, y), steps=60, learning_rate=1e-3)
    assert sum(losses(student, teacher, x, y)) < 0.9 * sum(before)
    assert weights_digest(teacher.module) == digest
    assert not student.module.training
    assert not teacher.module.training
    assert all(p.grad is None for m in (student, teacher) for p in m.module.parameters())
    assert not any(p.requires_grad for p in teacher.module.parameters())


def test_all_of_the_weight_on_the_teacher_copies_it(made) -> None:
    model, x = made
    student, teacher = pair(model)
    before = losses(student, teacher, x)[1]
    torch.manual_seed(0)
    distil(student, teacher, view(x), steps=40, learning_rate=3e-3, weight=100.0)
    with torch.no_grad():
        least = float(soft_cross_entropy(teacher(x), teacher(x)))
    assert losses(student, teacher, x)[1] - least < 0.3 * (before - least)


def test_the_same_seed_gives_the_same_weights_and_every_weight_learns(made) -> None:
    model, x = made
    student, teacher = pair(model)
    student.freeze_except([])
    digests = []
    for seed in (0, 0):
        twin = student.clone()
        torch.manual_seed(seed)
        distil(twin, teacher, view(x), steps=3, learning_rate=1e-3)
        digests.append(weights_digest(twin.module))
        moved = [
            not torch.equal(a, b)
            for a, b in zip(twin.module.parameters(), student.module.parameters(), strict=True)
        ]
        assert all(moved)
    assert digests[0] == digests[1]


def test_one_step_by_hand() -> None:
    """AdamW's first step moves each weight by the rate, against the sign of the gradient."""
    torch.manual_seed(0)
    student, teacher = TinyModel(nn.Linear(3, 2), ""), TinyModel(nn.Linear(3, 2), "")
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    weight = student.module.weight.detach().clone()
    logits = x @ weight.t() + student.module.bias.detach()
    target = nn.functional.one_hot(y, 2) + 0.5 * teacher(x).detach().softmax(1)
    gradient = (1.5 * logits.softmax(1) - target).t() @ x / 4
    source = DomainView("source", x, y, 4, torch.Generator())
    distil(student, teacher, source, 1, learning_rate=0.01, weight_decay=0.1, weight=0.5)
    expected = weight * (1 - 0.01 * 0.1) - 0.01 * gradient.sign()
    torch.testing.assert_close(student.module.weight.detach(), expected, rtol=0, atol=1e-6)


def test_no_steps_and_no_labels_are_refused(made) -> None:
    model, x = made
    student, teacher = pair(model)
    with pytest.raises(BenchError, match="0 steps train nothing; use 1 or more"):
        distil(student, teacher, view(x), steps=0, learning_rate=1e-3)
    with pytest.raises(BenchError, match="no labels"):
        distil(student, teacher, view(x, None), steps=1, learning_rate=1e-3)
    assert not student.module.training
