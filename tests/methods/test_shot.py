"""SHOT's labels and loss against Liang et al. (ICML 2020), eqs. (3) to (7), in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from bench.methods.shot import Shot, ShotConfig, centroid_labels


def plain_centroid_labels(features, probabilities, rounds=2):
    n, classes = probabilities.shape
    rows = []
    for f in features.tolist():
        f = [*f, 1.0]
        length = math.sqrt(sum(v * v for v in f))
        rows.append([v / length for v in f])
    weights = probabilities.tolist()
    present = [True] * classes
    labels = [0] * n
    for _ in range(rounds):
        centroids = []
        for c in range(classes):
            mass = sum(weights[i][c] for i in range(n))
            centroids.append(
                [
                    sum(weights[i][c] * rows[i][d] for i in range(n)) / max(mass, 1e-8)
                    for d in range(len(rows[0]))
                ]
            )
        for i in range(n):
            best, label = -math.inf, -1
            for c in range(classes):
                length = math.sqrt(sum(v * v for v in centroids[c])) or 1.0
                dot = sum(a * b for a, b in zip(rows[i], centroids[c], strict=True)) / length
                if present[c] and dot > best:
                    best, label = dot, c
            labels[i] = label
        weights = [[1.0 if labels[i] == c else 0.0 for c in range(classes)] for i in range(n)]
        present = [any(w[c] for w in weights) for c in range(classes)]
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_pseudo_labels_match_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    probabilities = torch.randn(12, 3, generator=generator, dtype=torch.float64).softmax(dim=1)
    expected = plain_centroid_labels(features, probabilities)
    assert centroid_labels(features, probabilities).tolist() == expected


def test_a_class_that_nothing_is_nearest_to_receives_no_label():
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    probabilities = torch.tensor([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    assert set(centroid_labels(features, probabilities).tolist()) <= {0, 1}


def test_one_update_follows_equation_7(model, data, view, adapt, adam_by_hand):
    x, _ = data(6)
    net = model.module
    weight = net.body.weight.detach().clone().requires_grad_(True)

    def forward(w):
        hidden = x @ w.t() + net.body.bias.detach()
        mean = hidden.mean(dim=1, keepdim=True)
        std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
        active = torch.tanh(
            (hidden - mean) / std * net.norm.weight.detach() + net.norm.bias.detach()
        )
        return active, active @ net.head.weight.detach().t() + net.head.bias.detach()

    features, logits = forward(weight)
    p = [[float(v) for v in row] for row in logits.detach().softmax(dim=1)]
    labels = plain_centroid_labels(features.detach(), torch.tensor(p, dtype=torch.float64))
    probabilities = torch.exp(logits) / torch.exp(logits).sum(dim=1, keepdim=True)
    loss = 0.0
    for i in range(6):
        for c in range(3):
            loss = loss - probabilities[i, c] * torch.log(probabilities[i, c]) / 6  # L_ent
        loss = loss - 0.3 * torch.log(probabilities[i, labels[i]]) / 6  # beta CE(pseudo)
    for c in range(3):
        mean = sum(probabilities[i, c] for i in range(6)) / 6
        loss = loss + mean * torch.log(mean)  # - L_div
    (gradient,) = torch.autograd.grad(loss, weight)
    expected = adam_by_hand(weight.detach(), [gradient], lr=0.01, weight_decay=0.01)

    head = net.head.weight.detach().clone()
    method = Shot(ShotConfig(learning_rate=0.01, epochs=1, optimizer="adamw", schedule="constant"))
    method.prepare(model, view(*data(4, seed=9)))
    tracker = adapt(method, view(x))

    torch.testing.assert_close(net.body.weight.detach(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.head.weight.detach(), head, rtol=0, atol=0)
    assert tracker.counts == {"pseudo-label": 1, "centroids": 1, "adapt": 1}


def test_the_optimizer_begins_anew_in_each_adaptation_unless_it_is_kept(model, data, view, adapt):
    """Anew: the second adaptation is that of a method that has just been prepared."""
    source, first, second = data(4, seed=9), data(6)[0], data(6, seed=2)[0]
    as_new = {}
    for state in ("new", "kept"):
        net = model.clone()
        method = Shot(ShotConfig(optimizer_state=state, epochs=2))
        method.prepare(net, view(*source))
        adapt(method, view(first))
        twin, fresh = net.clone(), Shot(ShotConfig(epochs=2))
        fresh.prepare(twin, view(*source))
        for each in (method, fresh):
            adapt(each, view(second))
        as_new[state] = torch.equal(net.module.body.weight, twin.module.body.weight)
    assert as_new == {"new": True, "kept": False}


def test_the_rate_decays_over_the_planned_steps_and_starts_anew(model, data, view, adapt):
    method = Shot(ShotConfig(epochs=2))
    method.prepare(model, view(*data(4, seed=9)))
    rates = []
    step = method.optimizer.step
    method.optimizer.step = lambda: (rates.append(method.optimizer.param_groups[0]["lr"]), step())
    adapt(method, view(data(6)[0], batch_size=3), view(data(6)[0], batch_size=3))
    once = [0.01 * (1 + 10 * p) ** -0.75 for p in (0.25, 0.5, 0.75, 1.0)]
    assert rates == pytest.approx([*once, *once])


def test_without_pseudo_labels_no_labelling_pass_is_charged(model, data, view, adapt):
    method = Shot(ShotConfig(pseudo_label_weight=0.0, epochs=2))
    method.prepare(model, view(*data(4, seed=9)))
    assert adapt(method, view(data(6)[0])).counts == {"adapt": 2}
