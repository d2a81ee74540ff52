"""EATA against Niu et al. (ICML 2022), eqs. (3) to (9), written out sample by sample."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods.eata import Eata, EataConfig


def logits_of(net, x, scale, shift):
    hidden = x @ net.body.weight.detach().t() + net.body.bias.detach()
    mean = hidden.mean(dim=1, keepdim=True)
    spread = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    active = torch.tanh((hidden - mean) / spread * scale + shift)
    return active @ net.head.weight.detach().t() + net.head.bias.detach()


def fisher_by_hand(net, x):
    """Eq. (9): the mean over samples of the squared gradient at the predicted label."""
    scale, shift = (p.detach().clone().requires_grad_(True) for p in net.norm.parameters())
    total = [torch.zeros(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)]
    for row in x:
        logits = logits_of(net, row.unsqueeze(0), scale, shift)[0]
        probabilities = torch.exp(logits) / torch.exp(logits).sum()
        loss = -torch.log(probabilities.max())
        for kept, gradient in zip(total, torch.autograd.grad(loss, (scale, shift)), strict=True):
            kept += gradient**2 / len(x)
    return total


def test_fisher_is_the_mean_squared_gradient_of_single_samples(model, data, view):
    x, y = data(7)
    expected = fisher_by_hand(model.module, x)
    method = Eata(EataConfig(fisher_batch=1))
    method.prepare(model, view(x, y))
    torch.testing.assert_close(method.fisher, torch.cat(expected), rtol=1e-6, atol=1e-12)


def test_fisher_of_a_batch_squares_the_mean_gradient_and_samples_are_bounded(model, data, view):
    x, y = data(7)
    seen = []
    handle = model.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    method = Eata(EataConfig(fisher_samples=5, fisher_batch=4))
    method.prepare(model, view(x, y))
    handle.remove()
    assert [len(batch) for batch in seen] == [4, 1]
    scale, shift = (p.detach().clone().requires_grad_(True) for p in model.module.norm.parameters())
    expected = 0.0
    for batch in seen:
        log_p = torch.log(torch.softmax(logits_of(model.module, batch, scale, shift), dim=1))
        loss = sum(-row.max() for row in log_p) / len(batch)
        expected = expected + torch.autograd.grad(loss, scale)[0] ** 2 / 2
    torch.testing.assert_close(method.fisher[:8], expected, rtol=1e-6, atol=1e-12)


def test_updates_follow_equations_3_to_8(model, data, view, adapt):
    xs, ys = data(6, seed=9)
    x, _ = data(24)
    x = 2 * x
    share, epsilon, beta, lr = 0.9, 0.85, 3.0, 0.05
    net = model.module
    fisher = fisher_by_hand(net, xs)
    start = [p.detach().clone() for p in net.norm.parameters()]
    weights = [p.clone() for p in start]
    velocity = [torch.zeros_like(p) for p in start]
    moving, verdicts = None, []
    for batch in view(x, batch_size=8).batches():
        live = [w.clone().requires_grad_(True) for w in weights]
        terms, chosen = [], []
        for row in torch.softmax(logits_of(net, batch.x, *live), dim=1):
            h = -(row * torch.log(row)).sum()
            margin = share * math.log(3)
            if h >= margin:
                verdicts.append("unreliable")
                continue
            p = row.detach()
            if moving is not None and (p @ moving) / (p.norm() * moving.norm()) >= epsilon:
                verdicts.append("redundant")
                continue
            verdicts.append("chosen")
            terms.append(h / math.exp(float(h.detach()) - margin))
            chosen.append(p)
        if not chosen:
            continue
        mean = sum(chosen) / len(chosen)
        moving = mean if moving is None else 0.1 * mean + 0.9 * moving
        penalty = sum((f * (w - s) ** 2).sum() for f, w, s in zip(fisher, live, start, strict=True))
        loss = sum(terms) / len(terms) + beta * penalty
        for i, gradient in enumerate(torch.autograd.grad(loss, live)):
            velocity[i] = 0.9 * velocity[i] + gradient
            weights[i] = weights[i] - lr * velocity[i]
    assert set(verdicts) == {"unreliable", "redundant", "chosen"}

    config = EataConfig(
        learning_rate=lr,
        entropy_share=share,
        max_similarity=epsilon,
        fisher_weight=beta,
        fisher_batch=1,
    )
    method = Eata(config)
    method.prepare(model, view(xs, ys))
    body = net.body.weight.detach().clone()
    adapt(method, view(x, batch_size=8))
    torch.testing.assert_close(method.average, moving, rtol=1e-6, atol=1e-12)
    for got, want in zip(net.norm.parameters(), weights, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=1e-9)
    assert torch.equal(net.body.weight.detach(), body)


def test_a_batch_without_a_reliable_sample_changes_nothing(model, data, view, adapt):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    method = Eata(EataConfig(entropy_share=1e-6))
    method.prepare(model, view(*data(6)))
    tracker = adapt(method, view(data(8)[0]))
    assert tracker.counts == {"adapt": 1}
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert method.average is None


def test_work_is_charged_by_the_samples_that_are_selected(model, data, view, adapt):
    x, _ = data(8)
    flops = {}
    for share in (1e-6, 1.0):
        method = Eata(EataConfig(entropy_share=share))
        method.prepare(model.clone(), view(*data(6)))
        flops[share] = adapt(method, view(x)).flops
    assert flops[1.0] > 1.5 * flops[1e-6]


def test_batchnorm_sees_the_whole_batch_once(model, data, view, adapt):
    """With BatchNorm, selected samples are normalized with the batch that they came in."""
    model.module.norm = nn.BatchNorm1d(8).double()
    net = model.module
    x, _ = data(8)
    hidden = torch.nn.functional.linear(x, net.body.weight.detach(), net.body.bias.detach())
    variance, mean = torch.var_mean(hidden, 0, correction=0)
    scale = torch.ones(8, dtype=torch.float64, requires_grad=True)
    active = torch.tanh((hidden - mean) / (variance + 1e-5).sqrt() * scale)
    p = torch.softmax(active @ net.head.weight.detach().t() + net.head.bias.detach(), dim=1)
    h = -(p * p.log()).sum(dim=1)
    margin = float(h.detach().median()) + 1e-6
    chosen = h[h < margin]
    assert len(chosen) < len(h)
    (gradient,) = torch.autograd.grad(((margin - chosen.detach()).exp() * chosen).mean(), scale)

    share = margin / math.log(3)
    method = Eata(EataConfig(entropy_share=share, learning_rate=0.1, fisher_weight=1.0))
    method.prepare(model, view(*data(6)))
    assert torch.equal(net.norm.running_mean, torch.zeros(8)), "the Fisher pass moves no statistics"
    adapt(method, view(x))
    torch.testing.assert_close(net.norm.weight.detach(), 1 - 0.1 * gradient, rtol=1e-6, atol=1e-9)


def test_a_model_without_normalization_is_refused_with_a_cure(model, data, view):
    model.module.norm = nn.Identity()
    with pytest.raises(Unsupported, match=r"TinyModel has no normalization layer.*use a method"):
        Eata(EataConfig()).prepare(model, view(*data(6)))


def test_two_bounds_at_once_are_refused() -> None:
    said = r"max_similarity \(0\.2\) and similarity_bound \(2\) say the same"
    with pytest.raises(ValueError, match=said):
        EataConfig(max_similarity=0.2, similarity_bound=2.0)
    given = EataConfig(max_similarity=0.2)
    assert EataConfig.model_validate(given.model_dump()) == given  # as a cell holds it
