"""CoTTA against Wang et al. (CVPR 2022), eqs. (2) to (8), with views that can be foreseen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods.cotta import Cotta, CottaConfig


class CountedViews(nn.Module):
    """The inputs plus 0.1, 0.2, ... in the order of the calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x, generator):
        self.calls += 1
        return x + 0.1 * self.calls


@pytest.fixture
def images(model, data):
    """The tiny network behind a flattening, for images of 2 x 3 pixels."""
    model.module = nn.Sequential(nn.Flatten(), model.module)
    return data(5)[0].reshape(5, 1, 2, 3)


def prepared(model, source, view, **settings):
    method = Cotta(CottaConfig(**settings))
    method.prepare(model, view(source))
    method.views = CountedViews()
    return method


def softmax_loops(logits):
    rows = []
    for row in logits:
        total = sum(torch.exp(z) for z in row)
        rows.append(torch.stack([torch.exp(z) / total for z in row]))
    return torch.stack(rows)


def plain_steps(model, x, steps, views, adam_by_hand, lr, momentum):
    """Student and teacher after ``steps``: eq. (3) or the plain teacher, eq. (5), eq. (2).

    The teacher begins off the student by 0.1: an equal one asks for no change.
    """
    start = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    student = {n: p.clone() for n, p in start.items()}
    teacher = {n: p + 0.1 for n, p in start.items()}
    history = {n: [] for n in start}
    call = torch.func.functional_call
    drawn = 0
    for _ in range(steps):
        seen = []
        for _ in range(views):
            drawn += 1
            seen.append(softmax_loops(call(model.module, teacher, (x + 0.1 * drawn,))))
        labels = sum(seen) / views if views else softmax_loops(call(model.module, teacher, (x,)))
        labels = labels.detach()
        live = {n: p.clone().requires_grad_(True) for n, p in student.items()}
        p = softmax_loops(call(model.module, live, (x,)))
        loss = 0.0
        for i in range(len(x)):
            for c in range(3):
                loss = loss - labels[i, c] * torch.log(p[i, c]) / len(x)
        for n, gradient in zip(live, torch.autograd.grad(loss, list(live.values())), strict=True):
            history[n].append(gradient)
            student[n] = adam_by_hand(start[n], history[n], lr)
            teacher[n] = momentum * teacher[n] + (1 - momentum) * student[n]
    return student, teacher


@pytest.mark.parametrize(("threshold", "views"), [(1.0, 3), (0.0, 0)])
def test_student_and_teacher_follow_the_equations(
    model, images, view, adapt, adam_by_hand, threshold, views
):
    """Above the threshold the teacher's own output is learned and no view is computed."""
    student, teacher = plain_steps(model, images, 2, views, adam_by_hand, 0.01, 0.9)
    method = prepared(
        model, images, view,
        learning_rate=0.01, epochs=2, teacher_momentum=0.9, augmentations=3,
        confidence_threshold=threshold, restore_probability=0.0,
    )  # fmt: skip
    with torch.no_grad():
        for weight in method.teacher.module.parameters():
            weight += 0.1
    adapt(method, view(images))
    assert method.views.calls == 2 * views
    for name, weight in model.module.named_parameters():
        torch.testing.assert_close(weight.detach(), student[name], rtol=1e-6, atol=1e-9)
    for name, weight in method.teacher.module.named_parameters():
        torch.testing.assert_close(weight.detach(), teacher[name], rtol=1e-6, atol=1e-9)
    expected = torch.func.functional_call(model.module, teacher, (images,))
    torch.testing.assert_close(method.predict(images), expected, rtol=1e-6, atol=1e-9)


def test_the_threshold_is_on_the_source_models_mean_confidence(model, images, view, adapt):
    """Eq. (4): the anchor decides, and it never changes."""
    confidence = softmax_loops(model.module(images)).detach().amax(dim=1).mean()
    for offset, calls in ((-1e-6, 0), (1e-6, 4)):
        twin = model.clone()
        threshold = float(confidence) + offset
        method = prepared(
            twin, images, view, augmentations=4, confidence_threshold=threshold, learning_rate=0.5
        )
        tracker = adapt(method, view(images))
        assert method.views.calls == calls
        assert tracker.counts == {"confidence": 1, "adapt on views" if calls else "adapt": 1}
        for a, b in zip(method.anchor.module.parameters(), model.module.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_weight_returns_to_the_source_with_the_probability(
    model, images, view, adapt, probability
):
    """Eqs. (7) and (8)."""
    source = torch.cat([p.detach().flatten() for p in model.module.parameters()])
    free = model.clone()
    settings = {"learning_rate": 0.1, "augmentations": 1}
    adapt(prepared(free, images, view, restore_probability=0.0, **settings), view(images))
    adapt(prepared(model, images, view, restore_probability=probability, **settings), view(images))
    moved = torch.cat([p.detach().flatten() for p in free.module.parameters()])
    now = torch.cat([p.detach().flatten() for p in model.module.parameters()])
    assert ((now == source) | (now == moved)).all()
    share = float((now == source).double().mean())
    assert abs(share - probability) < 0.15
    if probability in (0.0, 1.0):
        assert torch.equal(now, moved if probability == 0 else source)


def test_three_models_are_stored(model, images, view, adapt):
    from bench.operators.live_memory import live_tensors

    method = prepared(model, images, view)
    stored = sum(t.numel() for t in live_tensors(method.stored()) if t.dtype == torch.float64)
    assert stored == 3 * sum(p.numel() for p in model.module.parameters())


def test_the_teacher_takes_over_running_statistics(model, images, view, adapt):
    model.module[1].norm = nn.BatchNorm1d(8).double()
    method = prepared(model, images, view, statistics="running")
    adapt(method, view(images))
    assert not torch.equal(method.teacher.module[1].norm.running_mean, torch.zeros(8))
    assert torch.equal(
        method.teacher.module[1].norm.running_mean, model.module[1].norm.running_mean
    )
    assert torch.equal(method.anchor.module[1].norm.running_mean, torch.zeros(8).double())


def test_what_is_no_image_is_refused(model, data, view):
    with pytest.raises(Unsupported, match="cotta needs views of images"):
        Cotta(CottaConfig()).prepare(model, view(data(5)[0]))


def test_the_authors_prediction_is_the_mean_of_the_teachers_logits_over_views(model, images, view):
    """And predicting draws nothing from the method's own random numbers."""
    expected = (model.module(images + 0.1) + model.module(images + 0.2)).detach() / 2
    method = prepared(
        model, images, view, augmentations=2, confidence_threshold=1.0, prediction="views"
    )
    before = method.generator.get_state()
    with torch.no_grad():
        torch.testing.assert_close(method.predict(images), expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(method.generator.get_state(), before)
