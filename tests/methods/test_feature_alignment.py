"""Multi-kernel MMD and its use against Long et al. (ICML 2015) in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from bench.methods.feature_alignment import (
    FeatureAlignment,
    FeatureAlignmentConfig,
    multi_kernel_mmd,
)


def plain_mmd(source, target, kernels=5):
    rows = [*source.tolist(), *target.tolist()]
    n, size = len(source), len(rows)

    def squared(a, b):
        return sum((u - v) ** 2 for u, v in zip(a, b, strict=True))

    total = sum(squared(a, b) for a in rows for b in rows)
    bandwidth = total / (size * size - size)

    def kernel(a, b):
        return sum(
            math.exp(-squared(a, b) / (bandwidth * 2.0 ** (i - kernels // 2)))
            for i in range(kernels)
        )

    def mean(first, second):
        return sum(kernel(a, b) for a in first for b in second) / (len(first) * len(second))

    s, t = rows[:n], rows[n:]
    return mean(s, s) + mean(t, t) - 2 * mean(s, t)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (5, 3), (1, 6)])
def test_mmd_matches_loops(n, m):
    generator = torch.Generator().manual_seed(n + m)
    source = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    target = 0.5 + torch.randn(m, 4, generator=generator, dtype=torch.float64)
    assert float(multi_kernel_mmd(source, target)) == pytest.approx(
        plain_mmd(source, target), rel=1e-6
    )


def test_mmd_of_equal_sets_is_zero_and_of_shifted_sets_is_not():
    sample = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(multi_kernel_mmd(sample, sample)) == pytest.approx(0, abs=1e-12)
    assert float(multi_kernel_mmd(sample, sample + 2)) > 0.5


def test_the_bandwidth_is_held_constant_in_the_gradient():
    source = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[2.0], [4.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(multi_kernel_mmd(source, target), source)
    rows = [0.0, 1.0, 2.0, 4.0]
    h = sum((a - b) ** 2 for a in rows for b in rows) / 12
    expected = []
    for i, a in enumerate(rows[:2]):
        slope = 0.0
        for width in (h * 2.0 ** (k - 2) for k in range(5)):
            for j, b in enumerate(rows[:2]):
                if i != j:
                    slope += 2 * -2 * (a - b) / width * math.exp(-((a - b) ** 2) / width) / 4
            for b in rows[2:]:
                slope -= 2 * -2 * (a - b) / width * math.exp(-((a - b) ** 2) / width) / 4
        expected.append([slope])
    torch.testing.assert_close(
        gradient, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0
    )


def test_one_update_follows_source_loss_plus_mmd(model, data, view, adapt, adam_by_hand):
    (xs, ys), (xt, _) = data(5), data(5, seed=2)
    net = model.module
    weight = net.body.weight.detach().clone().requires_grad_(True)

    def features(x, w):
        hidden = x @ w.t() + net.body.bias.detach()
        mean = hidden.mean(dim=1, keepdim=True)
        std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return torch.tanh((hidden - mean) / std * net.norm.weight.detach() + net.norm.bias.detach())

    fs, ft = features(xs, weight), features(xt, weight)
    logits = fs @ net.head.weight.detach().t() + net.head.bias.detach()
    task = (
        sum(
            -torch.log(torch.exp(z)[y] / torch.exp(z).sum())
            for z, y in zip(logits, ys, strict=True)
        )
        / 5
    )
    joint = torch.cat([fs, ft])
    with torch.no_grad():
        h = sum(((a - b) ** 2).sum() for a in joint for b in joint) / 90
    mmd = 0.0
    for group, sign in (((fs, fs), 1), ((ft, ft), 1), ((fs, ft), -2)):
        for a in group[0]:
            for b in group[1]:
                for i in range(5):
                    mmd = mmd + sign * torch.exp(-((a - b) ** 2).sum() / (h * 2.0 ** (i - 2))) / 25
    (gradient,) = torch.autograd.grad(task + 2.0 * mmd, weight)
    expected = adam_by_hand(weight.detach(), [gradient], lr=0.01, weight_decay=0.01)

    head = net.head.weight.detach().clone()
    method = FeatureAlignment(FeatureAlignmentConfig(learning_rate=0.01, epochs=1, mmd_weight=2.0))
    method.prepare(model, view(xs, ys, batch_size=5))
    adapt(method, view(xt, batch_size=5))

    torch.testing.assert_close(net.body.weight.detach(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.head.weight.detach(), head, rtol=0, atol=0)


def test_features_that_are_all_equal_have_mmd_0_and_no_nan_gradient():
    source = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    mmd = multi_kernel_mmd(source, torch.ones(3, 3, dtype=torch.float64))
    mmd.backward()
    assert float(mmd.detach()) == pytest.approx(0, abs=1e-12)
    assert source.grad.abs().max() == 0
