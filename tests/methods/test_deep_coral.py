"""The CORAL loss against eqs. (1) to (3) of Sun & Saenko (ECCV-W 2016) in plain loops."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.deep_coral import DeepCoral, DeepCoralConfig, coral
from bench.methods.source_fine_tune import SourceFineTune


def plain_covariance(rows):
    n, d = len(rows), len(rows[0])
    total = [sum(row[i] for row in rows) for i in range(d)]
    return [
        [(sum(r[i] * r[j] for r in rows) - total[i] * total[j] / n) / (n - 1) for j in range(d)]
        for i in range(d)
    ]


def plain_coral(source, target):
    cs, ct = plain_covariance(source), plain_covariance(target)
    d = len(cs)
    return sum((cs[i][j] - ct[i][j]) ** 2 for i in range(d) for j in range(d)) / (4 * d * d)


@pytest.mark.parametrize(("n", "m"), [(5, 5), (7, 3), (2, 2)])
def test_coral_matches_loops(n, m):
    generator = torch.Generator().manual_seed(n)
    source = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    target = 2 * torch.randn(m, 4, generator=generator, dtype=torch.float64)
    expected = plain_coral(source.tolist(), target.tolist())
    assert float(coral(source, target)) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


@pytest.mark.parametrize(("n", "m"), [(1, 4), (4, 1), (1, 1)])
def test_without_a_covariance_the_loss_is_0(n, m):
    assert float(coral(torch.randn(n, 3), torch.randn(m, 3))) == 0.0


def test_one_update_follows_source_loss_plus_coral(model, data, view, adapt, adam_by_hand):
    (xs, ys), (xt, _) = data(5), data(6, seed=2)
    net = model.module
    weight = net.body.weight.detach().clone().requires_grad_(True)

    def features(x):
        hidden = x @ weight.t() + net.body.bias.detach()
        mean = hidden.mean(dim=1, keepdim=True)
        std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return torch.tanh((hidden - mean) / std * net.norm.weight.detach() + net.norm.bias.detach())

    fs, ft = features(xs), features(xt)
    task = cross_entropy(fs @ net.head.weight.detach().t() + net.head.bias.detach(), ys)
    loss = task + 50.0 * plain_coral([list(r) for r in fs], [list(r) for r in ft])
    (gradient,) = torch.autograd.grad(loss, weight)
    (without,) = torch.autograd.grad(
        cross_entropy(features(xs) @ net.head.weight.detach().t() + net.head.bias.detach(), ys),
        weight,
    )
    assert not torch.allclose(gradient, without, rtol=0.05)
    expected = adam_by_hand(weight.detach(), [gradient], lr=0.01, weight_decay=0.01)

    method = DeepCoral(
        DeepCoralConfig(
            learning_rate=0.01, epochs=1, coral_weight=50.0, optimizer="adamw", trained="body"
        )
    )
    method.prepare(model, view(xs, ys, batch_size=6))
    adapt(method, view(xt, batch_size=6))
    torch.testing.assert_close(net.body.weight.detach(), expected, rtol=1e-6, atol=1e-9)


def test_at_batch_size_1_it_is_source_fine_tuning(model, data, view, adapt):
    twin = model.clone()
    method = DeepCoral(DeepCoralConfig())
    recipe = method.config.model_dump(exclude={"coral_weight"})
    control = SourceFineTune(SourceFineTune.Config(**recipe))
    for each, net in ((method, model), (control, twin)):
        each.prepare(net, view(*data(4), batch_size=1))
        adapt(each, view(data(3, seed=2)[0], batch_size=1))
    for name, parameter in twin.module.named_parameters():
        torch.testing.assert_close(model.module.get_parameter(name), parameter, rtol=0, atol=0)
