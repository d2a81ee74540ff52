"""EWC through Avalanche against Kirkpatrick et al. (PNAS 2017) written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.ewc import Ewc, EwcConfig
from bench.methods.fine_tune import FineTune, FineTuneConfig


def fisher_by_hand(model, batches):
    """Mean over batches of the squared gradient of the batch loss."""
    total = {n: torch.zeros_like(p) for n, p in model.module.named_parameters()}
    for x, y in batches:
        model.module.zero_grad()
        cross_entropy(model.module(x), y).backward()
        for n, p in model.module.named_parameters():
            total[n] += p.grad**2 / len(batches)
    model.module.zero_grad()
    return total


@pytest.mark.parametrize("per_sample", [False, True])
def test_source_importances_are_the_squared_gradients(per_sample, model, data, view):
    """Of each batch as in Avalanche, or of each sample as in the paper's Fisher information."""
    x, y = data(8)
    size = 1 if per_sample else 4
    parts = [(x[i : i + size], y[i : i + size]) for i in range(0, 8, size)]
    expected = fisher_by_hand(model, parts)
    method = Ewc(EwcConfig(per_sample=per_sample))
    method.prepare(model, view(x, y, batch_size=4))
    for name, value in expected.items():
        importance = method.plugin.importances[0][f"module.{name}"].data
        # Avalanche keeps importances in float32.
        torch.testing.assert_close(importance.double(), value, rtol=1e-6, atol=1e-9)
        assert importance.sum() > 0


@pytest.mark.parametrize("mode", ["online", "separate"])
def test_updates_feel_the_penalty_gradient_of_every_earlier_domain(
    mode, model, data, view, adapt, adam_by_hand
):
    """2 lambda F (w - w*), summed over domains; online at the latest weights with summed F.

    Each domain gives two steps: at w* the penalty of the latest domain is flat.
    """
    domains = [data(6), data(6, seed=2), data(6, seed=3)]
    penalty, lr = 5.0, 0.01
    plain = model.clone()
    start = {n: p.detach().clone() for n, p in plain.module.named_parameters()}
    history = {n: [] for n in start}
    anchors = [(fisher_by_hand(plain, domains[:1]), start)]
    for domain in domains[1:]:
        for _ in range(2):
            plain.module.zero_grad()
            cross_entropy(plain.module(domain[0]), domain[1]).backward()
            for n, p in plain.module.named_parameters():
                pull = sum(2 * penalty * f[n] * (p.detach() - w[n]) for f, w in anchors)
                history[n].append(p.grad + pull)
            with torch.no_grad():
                for n, p in plain.module.named_parameters():
                    p.copy_(adam_by_hand(start[n], history[n], lr, weight_decay=0.01))
        reached = {n: p.detach().clone() for n, p in plain.module.named_parameters()}
        fisher = fisher_by_hand(plain, [domain])
        if mode == "online":
            ((old, _),) = anchors
            anchors = [({n: old[n] + fisher[n] for n in fisher}, reached)]
        else:
            anchors.append((fisher, reached))

    more = {"optimizer_state": "kept", "loss_classes": "all", "per_sample": False}
    method = Ewc(EwcConfig(penalty=penalty, learning_rate=lr, epochs=2, mode=mode, **more))
    method.prepare(model, view(*domains[0]))
    adapt(method, *(view(*domain) for domain in domains[1:]))

    for n, p in model.module.named_parameters():
        torch.testing.assert_close(
            p.detach(), plain.module.get_parameter(n).detach(), rtol=1e-6, atol=1e-9
        )


def test_with_weight_0_it_is_fine_tuning(model, data, view, adapt):
    twin = model.clone()
    source, (x, y) = data(6), data(6, seed=2)
    ewc = Ewc(EwcConfig(penalty=0.0, learning_rate=1e-3, epochs=2))
    plain = FineTune(FineTuneConfig(learning_rate=1e-3, epochs=2, loss_classes="task"))
    ewc.prepare(model, view(*source))
    plain.prepare(twin, view(*source))
    adapt(ewc, view(x, y, batch_size=4))
    adapt(plain, view(x, y, batch_size=4))
    torch.testing.assert_close(
        model.module.head.weight.detach(), twin.module.head.weight.detach(), rtol=1e-9, atol=0
    )


def test_importances_accumulate_over_domains_and_are_charged(model, data, view, adapt):
    method = Ewc(EwcConfig(epochs=1))
    method.prepare(model, view(*data(6)))
    before = {n: i.data.clone() for n, i in method.plugin.importances[0].items()}
    tracker = adapt(method, view(*data(6, seed=2)))
    assert tracker.counts == {"adapt": 1, "consolidation": 1}
    for name, importance in method.plugin.importances[1].items():
        assert (importance.data >= before[name]).all()
    assert 0 not in method.plugin.importances
