"""The linear probe against the gradient of softmax regression written out."""

from __future__ import annotations

import torch
from torch import nn

from bench.methods._supervised import SupervisedConfig
from bench.methods.linear_probe import LinearProbe
from bench.testing import TinyModel


def test_one_update_of_the_head_follows_the_softmax_gradient(
    model, data, view, adapt, adam_by_hand
):
    x, y = data(6)
    net = model.module
    before = {n: p.detach().clone() for n, p in net.named_parameters()}
    with torch.no_grad():
        features = torch.tanh(net.norm(net.body(x)))
        logits = features @ net.head.weight.t() + net.head.bias
    of_weight, of_bias = torch.zeros_like(net.head.weight), torch.zeros_like(net.head.bias)
    for f, z, label in zip(features, logits, y, strict=True):
        p = torch.exp(z) / torch.exp(z).sum()
        for c in range(3):
            of_weight[c] += (p[c] - float(c == label)) * f / 6
            of_bias[c] += (p[c] - float(c == label)) / 6

    method = LinearProbe(SupervisedConfig(learning_rate=0.01, epochs=1))
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(x, y))
    for name, gradient in (("head.weight", of_weight), ("head.bias", of_bias)):
        expected = adam_by_hand(before[name], [gradient], lr=0.01, weight_decay=0.01)
        torch.testing.assert_close(net.get_parameter(name).detach(), expected, rtol=1e-6, atol=1e-9)
    for name in ("body.weight", "body.bias", "norm.weight", "norm.bias"):
        torch.testing.assert_close(net.get_parameter(name).detach(), before[name], rtol=0, atol=0)


def test_the_features_are_those_of_prediction(data, view, adapt):
    """Neither dropout nor batch statistics: only the head is in training mode."""
    layers = nn.Sequential(nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    model = TinyModel(layers.double(), head_name="2")
    method = LinearProbe(SupervisedConfig(epochs=2))
    x, y = data(8)
    method.prepare(model, view(x, y))
    model.train(False)
    features = model.with_features(x)[1]
    adapt(method, view(x, y))
    assert model.module[2].training
    assert not model.module[0].training
    assert torch.equal(model.with_features(x)[1], features)
    assert torch.equal(model.module[0].running_mean, torch.zeros(6, dtype=torch.float64))


def test_one_class_in_a_batch_is_enough(model, data, view, adapt):
    x, _ = data(4)
    method = LinearProbe(SupervisedConfig(epochs=5, learning_rate=0.1))
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(x, torch.full((4,), 2)))
    assert method.predict(x).argmax(dim=1).tolist() == [2, 2, 2, 2]


def test_it_costs_less_than_fine_tuning(model, data, view, adapt):
    from bench.methods.fine_tune import FineTune

    twin = model.clone()
    meters = []
    for method, net in (
        (LinearProbe(SupervisedConfig()), model),
        (FineTune(FineTune.Config()), twin),
    ):
        method.prepare(net, view(*data(4, seed=9)))
        meters.append(adapt(method, view(*data(8))))
    assert meters[0].flops < meters[1].flops
