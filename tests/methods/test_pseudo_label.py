"""Pseudo-labels against Lee (2013): cross-entropy to the own hard label."""

from __future__ import annotations

import pytest
import torch

from bench.methods.pseudo_label import PseudoLabel, PseudoLabelConfig


def plain_loss(net, named, x, threshold):
    """-log p of the predicted class, mean over samples where p exceeds the threshold."""
    logits = torch.func.functional_call(net, named, (x,))
    losses = []
    for row in logits:
        p = torch.exp(row) / torch.exp(row).sum()
        label = max(range(3), key=lambda c: float(p[c].detach()))
        if p[label] > threshold:
            losses.append(-torch.log(p[label]))
    return sum(losses) / len(losses), len(losses)


@pytest.mark.parametrize(
    ("trained", "names"),
    [("normalisation", {"norm.weight", "norm.bias"}), ("all", None)],
)
def test_updates_follow_the_cross_entropy_of_confident_samples(
    model, data, view, adapt, adam_by_hand, trained, names
):
    x = 2 * data(9)[0]
    net, threshold, lr = model.module, 0.55, 0.01
    start = {n: p.detach().clone() for n, p in net.named_parameters()}
    now = {n: p.clone() for n, p in start.items()}
    learned = names or set(start)
    history = {n: [] for n in learned}
    for _ in range(2):
        live = {n: p.clone().requires_grad_(n in learned) for n, p in now.items()}
        loss, confident = plain_loss(net, live, x, threshold)
        assert 0 < confident < 9
        gradients = torch.autograd.grad(loss, [live[n] for n in history])
        for n, gradient in zip(history, gradients, strict=True):
            history[n].append(gradient)
            now[n] = adam_by_hand(start[n], history[n], lr)

    method = PseudoLabel(
        PseudoLabelConfig(learning_rate=lr, epochs=2, threshold=threshold, trained=trained)
    )
    method.prepare(model, view(data(4)[0]))
    adapt(method, view(x))
    for n, p in net.named_parameters():
        torch.testing.assert_close(p.detach(), now[n], rtol=1e-6, atol=1e-9)


def test_a_batch_without_confidence_changes_nothing(model, data, view, adapt):
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    method = PseudoLabel(PseudoLabelConfig(threshold=1.0))
    method.prepare(model, view(data(4)[0]))
    assert adapt(method, view(data(8)[0])).counts == {"adapt": 1}
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())
    assert not method.optimizer.state
