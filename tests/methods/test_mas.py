"""MAS against Aljundi et al. (ECCV 2018) written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.mas import Mas, MasConfig


def sensitivity_by_hand(model, parts):
    """Mean over parts of |d mean_n sum_c f_c(x_n)^2 / dw|."""
    total = {n: torch.zeros_like(p) for n, p in model.module.named_parameters()}
    for x in parts:
        model.module.zero_grad()
        outputs = model.module(x)
        squares = sum(outputs[i, c] ** 2 for i in range(len(x)) for c in range(3)) / len(x)
        squares.backward()
        for n, p in model.module.named_parameters():
            total[n] += p.grad.abs() / len(parts)
    model.module.zero_grad()
    return total


@pytest.mark.parametrize("per_sample", [False, True])
def test_source_importances_are_the_outputs_sensitivity(per_sample, model, data, view):
    """Of the squared 2-norm; a sample at a time it is the paper's mean."""
    x, y = data(8)
    expected = sensitivity_by_hand(model, x.split(1 if per_sample else 4))
    method = Mas(MasConfig(per_sample=per_sample))
    method.prepare(model, view(x, y, batch_size=4))
    for name, value in expected.items():
        importance = method.plugin.importance[f"module.{name}"].data
        torch.testing.assert_close(importance.double(), value, rtol=1e-6, atol=1e-8)
        assert importance.sum() > 0


@pytest.mark.parametrize("alpha", [0.3, None])
def test_updates_feel_the_penalty_gradient(alpha, model, data, view, adapt, adam_by_hand):
    """2 lambda Omega (w - w*) with Omega the sum of old and new importances, or an average."""
    domains = [data(6), data(6, seed=2), data(6, seed=3)]
    penalty, lr = 2.0, 0.01
    old, latest = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    plain = model.clone()
    start = {n: p.detach().clone() for n, p in plain.module.named_parameters()}
    history = {n: [] for n in start}
    omega, anchor = sensitivity_by_hand(plain, [domains[0][0]]), start
    for x, y in domains[1:]:
        for _ in range(2):
            plain.module.zero_grad()
            cross_entropy(plain.module(x), y).backward()
            for n, p in plain.module.named_parameters():
                history[n].append(p.grad + 2 * penalty * omega[n] * (p.detach() - anchor[n]))
            with torch.no_grad():
                for n, p in plain.module.named_parameters():
                    p.copy_(adam_by_hand(start[n], history[n], lr, weight_decay=0.01))
        anchor = {n: p.detach().clone() for n, p in plain.module.named_parameters()}
        new = sensitivity_by_hand(plain, [x])
        omega = {n: old * omega[n] + latest * new[n] for n in new}

    more = {"optimizer_state": "kept", "loss_classes": "all", "per_sample": False}
    method = Mas(MasConfig(penalty=penalty, alpha=alpha, learning_rate=lr, epochs=2, **more))
    method.prepare(model, view(*domains[0]))
    adapt(method, *(view(*domain) for domain in domains[1:]))

    for n, p in model.module.named_parameters():
        torch.testing.assert_close(
            p.detach(), plain.module.get_parameter(n).detach(), rtol=1e-6, atol=1e-9
        )
        importance = method.plugin.importance[f"module.{n}"].data
        torch.testing.assert_close(importance.double(), omega[n], rtol=1e-5, atol=1e-7)


def test_a_loss_of_exactly_0_is_borne(model, data, view, adapt):
    """Avalanche's plugin raises ValueError on it."""
    with torch.no_grad():
        model.module.head.weight.zero_()
        model.module.head.bias.copy_(torch.tensor([1e4, 0.0, 0.0]))
    x, _ = data(4)
    y = torch.zeros(4, dtype=torch.int64)
    assert cross_entropy(model.module(x), y).item() == 0.0
    method = Mas(MasConfig(epochs=2))
    method.prepare(model, view(x, y))
    assert adapt(method, view(x, y)).counts["adapt"] == 2


def test_dropout_is_off_while_importances_are_estimated(model, data, view):
    model.module.head = torch.nn.Sequential(torch.nn.Dropout(0.5), model.module.head)
    x, y = data(6)
    first, second = (Mas(MasConfig()) for _ in range(2))
    first.prepare(model.clone(), view(x, y))
    second.prepare(model.clone(), view(x, y))
    for name, importance in first.plugin.importance.items():
        assert torch.equal(importance.data, second.plugin.importance[name].data)
