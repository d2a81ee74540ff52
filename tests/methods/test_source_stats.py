"""CFA's moments, losses and update against Kojima et al. (IJCAI 2022) in plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.methods import source_stats
from bench.methods.source_stats import (
    SourceFeatures,
    SourceStats,
    SourceStatsConfig,
    bounded,
    central_moments,
    class_means,
)
from bench.testing import TinyModel


def plain_bounded(rows):
    out = []
    for row in rows:
        mean = sum(row) / len(row)
        std = (sum((v - mean) ** 2 for v in row) / len(row) + 1e-5) ** 0.5
        out.append([torch.tanh(torch.as_tensor((v - mean) / std)) for v in row])
    return out


def plain_moments(rows, order):
    n, width = len(rows), len(rows[0])
    means = [sum(r[j] for r in rows) / n for j in range(width)]
    higher = [
        [sum((r[j] - means[j]) ** k for r in rows) / n for j in range(width)]
        for k in range(2, order + 1)
    ]
    return [means, *higher]


def plain_distance(a, b):
    return sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) ** 0.5


def plain_loss(hidden, labels, moments, means, weight):
    """sum_k |M_k - S_k| / 2^k + w mean over predicted classes of |m_c - s_c| / 2."""
    loss = 0.0
    for k, (mine, theirs) in enumerate(
        zip(plain_moments(hidden, len(moments)), moments, strict=True), start=1
    ):
        loss = loss + plain_distance(mine, theirs) / 2**k
    seen = sorted(set(labels))
    for c in seen:
        rows = [h for h, label in zip(hidden, labels, strict=True) if label == c]
        loss = loss + weight * plain_distance(plain_moments(rows, 1)[0], means[c]) / 2 / len(seen)
    return loss


def test_bounded_features_and_their_moments_match_loops():
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = plain_bounded(features.tolist())
    torch.testing.assert_close(bounded(features), torch.tensor(plain, dtype=torch.float64))
    moments = torch.tensor(plain_moments(plain, 4), dtype=torch.float64)
    torch.testing.assert_close(central_moments(bounded(features), 4), moments)


def test_two_updates_on_the_norm_layer_follow_the_loss(model, data, view, adapt):
    """SGD with momentum 0.9 on the gradient clipped to norm 1; nothing else changes."""
    (xs, ys), (xt, _) = data(7), data(6, seed=2)
    net = model.module
    frozen = {n: p.detach().clone() for n, p in net.named_parameters()}
    scale = frozen["norm.weight"].clone().requires_grad_(True)
    shift = frozen["norm.bias"].clone().requires_grad_(True)

    def forward(x):
        hidden = x @ frozen["body.weight"].t() + frozen["body.bias"]
        mean = hidden.mean(dim=1, keepdim=True)
        std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
        features = torch.tanh((hidden - mean) / std * scale + shift)
        logits = features @ frozen["head.weight"].t() + frozen["head.bias"]
        return plain_bounded([list(row) for row in features]), logits.argmax(dim=1).tolist()

    with torch.no_grad():
        source, _ = forward(xs)
        moments = plain_moments(source, 3)
        means = {
            c: plain_moments([h for h, y in zip(source, ys, strict=True) if y == c], 1)[0]
            for c in set(ys.tolist())
        }
    speed = [torch.zeros_like(scale), torch.zeros_like(shift)]
    clipped = []
    for _ in range(2):
        loss = plain_loss(*forward(xt), moments, means, weight=0.6)
        gradients = torch.autograd.grad(loss, (scale, shift))
        length = math.sqrt(sum(float((g * g).sum()) for g in gradients))
        clipped.append(length > 0.05)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip((scale, shift), gradients, strict=True)):
                speed[i] = 0.9 * speed[i] + g * min(1.0, 0.05 / (length + 1e-6))
                p -= 0.1 * speed[i]
    assert any(clipped)

    method = SourceStats(
        SourceStatsConfig(learning_rate=0.1, epochs=2, class_weight=0.6, clip_norm=0.05)
    )
    source_view = view(xs, ys, batch_size=3)
    method.prepare(model, source_view)
    source_view.close("the source is not on the device")
    adapt(method, view(xt))
    torch.testing.assert_close(net.norm.weight.detach(), scale.detach(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.norm.bias.detach(), shift.detach(), rtol=1e-6, atol=1e-9)
    for name in ("body.weight", "body.bias", "head.weight", "head.bias"):
        torch.testing.assert_close(net.get_parameter(name).detach(), frozen[name], rtol=0, atol=0)


def test_the_statistics_are_all_that_stays_of_the_source(model, data, view):
    method = SourceStats(SourceStatsConfig(moments=2))
    method.prepare(model, view(*data(9), batch_size=4))
    kept = {n: v for n, v in method.stored().items() if isinstance(v, torch.Tensor)}
    assert {n: tuple(v.shape) for n, v in kept.items()} == {
        "moments": (2, 8),
        "means": (3, 8),
        "known": (3,),
    }
    assert not any("source" in name for name in vars(method))


def test_on_the_source_itself_the_loss_is_0_and_its_gradient_finite(model, data, view):
    x, y = data(9)
    method = SourceStats(SourceStatsConfig())
    method.prepare(model, view(x, y))
    hidden = bounded(model.with_features(x)[1])
    loss = method.overall_loss(hidden) + method.class_loss(hidden, y)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-9)
    loss.backward()
    assert torch.isfinite(model.module.norm.weight.grad).all()


def test_classes_that_the_source_or_the_batch_lacks_do_not_count(model, data, view):
    x, _ = data(6)
    method = SourceStats(SourceStatsConfig())
    method.prepare(model, view(x, torch.tensor([0, 0, 0, 1, 1, 1])))
    assert method.known.tolist() == [True, True, False]
    hidden = bounded(model.with_features(x)[1]).detach()
    mine, _ = class_means(hidden[:4], torch.tensor([1, 1, 2, 2]), 3)
    expected = plain_distance(mine[1].tolist(), method.means[1].tolist()) / 2
    got = method.class_loss(hidden[:4], torch.tensor([1, 1, 2, 2]))
    assert float(got) == pytest.approx(expected)
    assert float(method.class_loss(hidden[:1], torch.tensor([2]))) == 0.0


def test_batch_norm_uses_the_batch_while_dropout_stays_off(data, view, adapt):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 3))
    model = TinyModel(net.double(), head_name="3")
    method = SourceStats(SourceStatsConfig(learning_rate=1e-8, statistics="running"))
    method.prepare(model, view(*data(9)))
    x = 3 + data(9, seed=2)[0]
    assert model.module[1].running_mean.abs().sum() == 0
    adapt(method, view(x))
    expected = 0.1 * model.module[0](x).mean(dim=0)
    torch.testing.assert_close(model.module[1].running_mean, expected.detach())
    assert not model.module[2].training
    kept = model.module[1].running_mean.clone()
    method.predict(x)
    assert torch.equal(model.module[1].running_mean, kept)


def test_statistics_of_a_large_source_follow_from_sums(monkeypatch):
    """They equal those of all features at once; void counts in moments and in no class."""
    g = torch.Generator().manual_seed(3)
    batches = [
        (torch.tanh(torch.randn(n, 5, generator=g)), torch.randint(0, 4, (n,), generator=g))
        for n in (7, 9, 4)
    ]
    for _, labels in batches:
        labels[labels == 2] = 255

    def statistics(kept: int):
        monkeypatch.setattr(source_stats, "KEPT_BYTES", kept)
        features = SourceFeatures(4, 255)
        for hidden, labels in batches:
            features.add(hidden, labels, 4)
        return features.statistics()

    at_once = statistics(10**6)
    hidden = torch.cat([hidden for hidden, _ in batches])
    torch.testing.assert_close(at_once[0], central_moments(hidden, 4), rtol=0, atol=0)
    for kept in (0, 7 * 5 * 4, 300):
        for found, expected in zip(statistics(kept), at_once, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert at_once[2].tolist() == [True, True, False, True]
