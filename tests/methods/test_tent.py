"""Tent against eq. (1) of Wang et al. (ICLR 2021) computed with plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods._losses import entropy
from bench.methods.tent import Tent, TentConfig


def plain_forward(x, body_w, body_b, scale, shift, head_w, head_b):
    """Logits of the tiny network for one sample, one number at a time."""
    hidden = [
        sum(body_w[j, i] * x[i] for i in range(len(x))) + body_b[j] for j in range(len(body_b))
    ]
    mean = sum(hidden) / len(hidden)
    variance = sum((h - mean) ** 2 for h in hidden) / len(hidden)
    normed = [
        scale[j] * (hidden[j] - mean) / torch.sqrt(variance + 1e-5) + shift[j]
        for j in range(len(hidden))
    ]
    active = [torch.tanh(v) for v in normed]
    return [
        sum(head_w[c, j] * active[j] for j in range(len(active))) + head_b[c]
        for c in range(len(head_b))
    ]


def plain_entropy(logits):
    exponentials = [torch.exp(z) for z in logits]
    total = sum(exponentials)
    return -sum((e / total) * torch.log(e / total) for e in exponentials)


def test_entropy_of_a_uniform_prediction_is_the_log_of_the_number_of_classes():
    assert torch.allclose(entropy(torch.zeros(2, 5)), torch.full((2,), math.log(5)))


def test_two_updates_follow_the_mean_entropy_gradient(model, data, view, adapt, adam_by_hand):
    x, _ = data(5)
    net = model.module
    frozen = [t.detach().clone() for t in (net.body.weight, net.body.bias)]
    head = [t.detach().clone() for t in (net.head.weight, net.head.bias)]
    scale, shift = net.norm.weight.detach().clone(), net.norm.bias.detach().clone()
    start = scale.clone(), shift.clone()
    gradients: list[list[torch.Tensor]] = [[], []]
    for _ in range(2):
        scale.requires_grad_(True)
        shift.requires_grad_(True)
        entropies = [plain_entropy(plain_forward(row, *frozen, scale, shift, *head)) for row in x]
        got = torch.autograd.grad(sum(entropies) / len(entropies), (scale, shift))
        for kept, gradient in zip(gradients, got, strict=True):
            kept.append(gradient)
        scale = adam_by_hand(start[0], gradients[0], lr=0.01).detach()
        shift = adam_by_hand(start[1], gradients[1], lr=0.01).detach()

    method = Tent(TentConfig(learning_rate=0.01, epochs=2))
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(x))

    torch.testing.assert_close(net.norm.weight.detach(), scale, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.norm.bias.detach(), shift, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(net.body.weight.detach(), frozen[0], rtol=0, atol=0)
    torch.testing.assert_close(net.head.weight.detach(), head[0], rtol=0, atol=0)


def test_a_model_without_normalization_is_refused_with_a_cure(model, data, view):
    model.module.norm = nn.Identity()
    with pytest.raises(Unsupported, match=r"TinyModel has no normalization layer.*such as shot"):
        Tent(TentConfig()).prepare(model, view(*data(4)))
