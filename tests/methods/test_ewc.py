"""EWC through Avalanche against Kirkpatrick et al. (PNAS 2017) written out."""

from __future__ import annotations

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


def test_source_importances_are_the_squared_gradients(model, data, view):
    x, y = data(8)
    expected = fisher_by_hand(model, [(x[:4], y[:4]), (x[4:], y[4:])])
    method = Ewc(EwcConfig())
    method.prepare(model, view(x, y, batch_size=4))
    for name, importance in method.ewc.importances[0].items():
        # Avalanche keeps importances in float32.
        torch.testing.assert_close(importance.data.double(), expected[name], rtol=1e-6, atol=1e-9)
        assert importance.data.sum() > 0


def test_the_second_update_feels_the_penalty_gradient(model, data, view, adapt, adam_by_hand):
    """At w* the penalty is flat; the second step feels 2 lambda F (w - w*)."""
    (xs, ys), (xt, yt) = data(6), data(6, seed=2)
    penalty, lr = 5.0, 0.01
    fisher = fisher_by_hand(model, [(xs, ys)])
    start = {n: p.detach().clone() for n, p in model.module.named_parameters()}
    plain = model.clone()
    history = {n: [] for n in start}
    for _ in range(2):
        plain.module.zero_grad()
        cross_entropy(plain.module(xt), yt).backward()
        for n, p in plain.module.named_parameters():
            history[n].append(p.grad + 2 * penalty * fisher[n] * (p.detach() - start[n]))
        with torch.no_grad():
            for n, p in plain.module.named_parameters():
                p.copy_(adam_by_hand(start[n], history[n], lr, weight_decay=0.01))

    method = Ewc(EwcConfig(penalty=penalty, learning_rate=lr, epochs=2))
    method.prepare(model, view(xs, ys))
    adapt(method, view(xt, yt))

    for n, p in model.module.named_parameters():
        torch.testing.assert_close(
            p.detach(), plain.module.get_parameter(n).detach(), rtol=1e-6, atol=1e-9
        )


def test_with_weight_0_it_is_fine_tuning(model, data, view, adapt):
    twin = model.clone()
    source, (x, y) = data(6), data(6, seed=2)
    ewc, plain = Ewc(EwcConfig(penalty=0.0)), FineTune(FineTuneConfig())
    ewc.prepare(model, view(*source))
    plain.prepare(twin, view(*source))
    adapt(ewc, view(x, y))
    adapt(plain, view(x, y))
    torch.testing.assert_close(
        model.module.head.weight.detach(), twin.module.head.weight.detach(), rtol=1e-9, atol=0
    )


def test_importances_accumulate_over_domains_and_are_charged(model, data, view, adapt):
    method = Ewc(EwcConfig(epochs=1))
    method.prepare(model, view(*data(6)))
    before = {n: i.data.clone() for n, i in method.ewc.importances[0].items()}
    meter = adapt(method, view(*data(6, seed=2)))
    assert meter.counts == {"adapt": 1, "consolidation": 1}
    for name, importance in method.ewc.importances[1].items():
        assert (importance.data >= before[name]).all()
    assert 0 not in method.ewc.importances


def test_the_window_stops_the_library_in_the_middle(model, data, view, adapt):
    method = Ewc(EwcConfig(epochs=50))
    method.prepare(model, view(*data(8), batch_size=4))
    first = adapt(method, view(*data(8, seed=2), batch_size=4))
    assert first.counts["adapt"] == 100
    step_s = first.bills[0].expected_s(("adapt", (4, 6)))
    meter = adapt(method, view(*data(8, seed=3), batch_size=4), budget_s=7.5 * step_s)
    assert meter.counts["adapt"] == 7
    assert meter.bills[0].window.time_s > 7 * step_s
    again = adapt(method, view(*data(8, seed=4), batch_size=4))
    assert again.counts["adapt"] == 100, "stopping once must not stop the next domain"
