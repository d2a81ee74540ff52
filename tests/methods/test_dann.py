"""DANN's saddle point and schedule (Ganin et al., JMLR 2016, sections 4.2 and 5.2.2) by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.dann import Dann, DannConfig, reversal, reverse_gradient

LR, WEIGHT = 0.01, 0.5


def forward(x, p):
    """Features and logits of the tiny network."""
    hidden = x @ p["body.weight"].t() + p["body.bias"]
    mean = hidden.mean(dim=1, keepdim=True)
    std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    features = torch.tanh((hidden - mean) / std * p["norm.weight"] + p["norm.bias"])
    return features, features @ p["head.weight"].t() + p["head.bias"]


def domain_loss(fs, ft, d):
    """(1/n) sum over the source + (1/m) sum over the target of the binary cross-entropy."""
    total = 0.0
    for rows, is_target in ((fs, 0.0), (ft, 1.0)):
        for f in rows:
            hidden = (d["0.weight"] @ f + d["0.bias"]).clamp_min(0)
            p = 1 / (1 + torch.exp(-(d["2.weight"] @ hidden + d["2.bias"])[0]))
            term = is_target * torch.log(p) + (1 - is_target) * torch.log(1 - p)
            total = total - term / len(rows)
    return total


def leaves(module):
    return {n: p.detach().clone().requires_grad_(True) for n, p in module.named_parameters()}


def test_the_schedule_of_the_paper():
    assert reversal(0.0) == 0.0
    assert reversal(0.5) == pytest.approx((1 - math.exp(-5)) / (1 + math.exp(-5)))
    assert 0.9999 < reversal(1.0) < 1.0


def test_the_reversal_layer_is_the_identity_forward_and_minus_lambda_backward():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    y.square().sum().backward()
    torch.testing.assert_close(x.grad, -0.3 * 2 * x.detach())


def test_three_updates_follow_the_saddle_point(model, data, view, adapt, adam_by_hand):
    """Body: task gradient - w lambda_p domain gradient; discriminator: the domain gradient."""
    (xs, ys), (xt, _) = data(6), data(9, seed=2)
    config = DannConfig(
        learning_rate=LR, epochs=1, domain_weight=WEIGHT, hidden=5,
        optimizer="adamw", schedule="constant", trained="body",
    )  # fmt: skip
    method = Dann(config)
    method.prepare(model, view(xs, ys, batch_size=3))
    body, disc = leaves(model.module), leaves(method.discriminator)
    trained = [n for n in body if not n.startswith("head")]
    start = {n: t.detach().clone() for n, t in [*body.items(), *disc.items()]}
    history = {n: [] for n in (*trained, *disc)}

    sources, targets = view(xs, ys, batch_size=3).infinite(), view(xt, batch_size=3).batches()
    for step, target in enumerate(targets):
        source = next(sources)
        fs, logits = forward(source.x, body)
        ft, _ = forward(target.x, body)
        task, adversary = cross_entropy(logits, source.y), domain_loss(fs, ft, disc)
        lam = WEIGHT * (2 / (1 + math.exp(-10 * step / 3)) - 1)
        of_task = torch.autograd.grad(task, [body[n] for n in trained], retain_graph=True)
        of_domain = torch.autograd.grad(
            adversary, [*[body[n] for n in trained], *disc.values()], allow_unused=True
        )
        for n, t, d in zip(trained, of_task, of_domain, strict=False):
            history[n].append(t - lam * d)
        for n, d in zip(disc, of_domain[len(trained) :], strict=True):
            history[n].append(d)
        with torch.no_grad():
            for n, gradients in history.items():
                new = adam_by_hand(start[n], gradients, LR, weight_decay=0.01)
                (body if n in body else disc)[n].copy_(new)

    assert adapt(method, view(xt, batch_size=3)).counts == {"adapt": 3}
    for module, expected in ((model.module, body), (method.discriminator, disc)):
        for n, p in module.named_parameters():
            torch.testing.assert_close(p.detach(), expected[n].detach(), rtol=1e-6, atol=1e-9)


def test_with_weight_0_the_body_feels_no_discriminator(model, data, view, adapt):
    from bench.methods.source_fine_tune import SourceFineTune

    twin = model.clone()
    method = Dann(DannConfig(domain_weight=0.0))
    recipe = method.config.model_dump(exclude={"domain_weight", "hidden"})
    control = SourceFineTune(SourceFineTune.Config(**recipe))
    for each, net in ((method, model), (control, twin)):
        each.prepare(net, view(*data(8), batch_size=4))
        adapt(each, view(data(8, seed=2)[0], batch_size=4))
    for name, parameter in twin.module.named_parameters():
        torch.testing.assert_close(model.module.get_parameter(name), parameter, rtol=0, atol=0)


def test_the_discriminator_persists_and_is_on_the_memory_bill(model, data, view, adapt):
    method = Dann(DannConfig(hidden=5))
    method.prepare(model, view(*data(8)))
    adapt(method, view(data(8, seed=2)[0]))
    kept, learned = method.discriminator, method.discriminator[0].weight.detach().clone()
    adapt(method, view(data(8, seed=3)[0]))
    assert method.discriminator is kept
    assert not torch.equal(kept[0].weight, learned)
    assert method.stored()["discriminator"] is kept
    assert (kept[0].in_features, kept[0].weight.dtype) == (8, torch.float64)
