"""Supervised fine-tuning against cross-entropy and AdamW written out."""

from __future__ import annotations

import pytest
import torch

from bench.errors import LabelsHidden
from bench.methods.fine_tune import FineTune, FineTuneConfig


def test_one_update_of_the_head_follows_the_softmax_gradient(
    model, data, view, adapt, adam_by_hand
):
    x, y = data(6)
    net = model.module
    with torch.no_grad():
        features = torch.tanh(net.norm(net.body(x)))
        logits = features @ net.head.weight.t() + net.head.bias
    gradient = torch.zeros_like(net.head.weight)
    for f, z, label in zip(features, logits, y, strict=True):
        p = torch.exp(z) / torch.exp(z).sum()
        for c in range(3):
            gradient[c] += (p[c] - float(c == label)) * f / 6
    expected = adam_by_hand(net.head.weight.detach(), [gradient], lr=0.01, weight_decay=0.01)

    method = FineTune(FineTuneConfig(learning_rate=0.01, epochs=1))
    method.prepare(model, view(*data(4, seed=9)))
    adapt(method, view(x, y))

    torch.testing.assert_close(net.head.weight.detach(), expected, rtol=1e-6, atol=1e-9)


def test_without_labels_it_is_told_why_there_are_none(model, data, view, adapt):
    method = FineTune(FineTuneConfig())
    method.prepare(model, view(*data(4, seed=9)))
    with pytest.raises(LabelsHidden, match="supervised_references"):
        adapt(method, view(data(6)[0]))
