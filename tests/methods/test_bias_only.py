"""BitFit: which parameters move, and one update of a bias written out."""

from __future__ import annotations

import pytest
import torch
from small_decoders import decoder, texts, weights
from torch import nn

from bench.errors import Unsupported
from bench.methods._supervised import SupervisedConfig
from bench.methods.bias_only import BiasOnly
from bench.testing import TinyModel


def test_one_update_of_biases_and_head_follows_cross_entropy(
    model, data, view, adapt, adam_by_hand
):
    x, y = data(6)
    net = model.module
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    leaves = {n: t.clone().requires_grad_(True) for n, t in before.items()}
    hidden = x @ leaves["body.weight"].t() + leaves["body.bias"]
    mean = hidden.mean(dim=1, keepdim=True)
    std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    features = torch.tanh((hidden - mean) / std * leaves["norm.weight"] + leaves["norm.bias"])
    logits = features @ leaves["head.weight"].t() + leaves["head.bias"]
    loss = 0.0
    for z, label in zip(logits, y, strict=True):
        loss = loss - torch.log(torch.exp(z[label]) / torch.exp(z).sum()) / 6
    trained = ("body.bias", "norm.bias", "head.weight", "head.bias")
    gradients = torch.autograd.grad(loss, [leaves[n] for n in trained])

    method = BiasOnly(SupervisedConfig(learning_rate=0.01, epochs=1))
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(x, y))
    for name, gradient in zip(trained, gradients, strict=True):
        expected = adam_by_hand(before[name], [gradient], lr=0.01, weight_decay=0.01)
        torch.testing.assert_close(net.get_parameter(name).detach(), expected, rtol=1e-6, atol=1e-9)
    for name in ("body.weight", "norm.weight"):
        torch.testing.assert_close(net.get_parameter(name).detach(), before[name], rtol=0, atol=0)


def test_optimizer_state_is_kept_for_what_is_trained_only(model, data, view, adapt):
    method = BiasOnly(SupervisedConfig())
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(*data(6)))
    kept = sum(s["exp_avg"].numel() for s in method.optimizer.state.values())
    assert kept == 8 + 8 + 8 * 3 + 3


def test_a_model_without_biases_is_unsupported_and_told_what_to_use(data, view):
    layers = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3))
    model = TinyModel(layers, head_name="2")
    with pytest.raises(Unsupported, match=r"TinyModel has no parameter named.*linear-probe"):
        BiasOnly(SupervisedConfig()).prepare(model, view(*data(4)))


@pytest.mark.parametrize("name", ["opt", "bloom"])
def test_of_a_language_model_biases_alone_move(view, adapt, name):
    """As GreenTrainer's released rival: its head is tied, and no task adds one."""
    lm = decoder(name)
    before = weights(lm)
    method = BiasOnly(SupervisedConfig(epochs=3))
    method.prepare(lm, view(*texts(4, seed=9)))
    adapt(method, view(*texts(6)))
    changed = {n for n, value in weights(lm).items() if not torch.equal(value, before[n])}
    assert changed == {n for n in before if n.endswith("bias")}
