"""SI against Zenke, Poole and Ganguli (ICML 2017), eqs. (4) and (5), written out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bench.methods.si import Si, SiConfig


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


def test_path_and_penalty_over_the_source_and_two_domains(model, data, view, adapt):
    """omega = -sum_t g_t (w_t+1 - w_t), g of the task loss; Omega of eq. (5); loss of eq. (4)."""
    domains = [data(6), data(6, seed=2), data(6, seed=3)]
    c, xi, lr = 3.0, 0.01, 0.01
    net = model.clone().module
    parameters = list(net.parameters())
    deployed = [p.detach().clone() for p in parameters]
    omega = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    anchor = flat(parameters)

    def train(optimizer, x, y, steps):
        nonlocal omega, anchor
        path = torch.zeros_like(omega)
        for _ in range(steps):
            task = flat(torch.autograd.grad(cross_entropy(net(x), y), parameters))
            before = flat(parameters)
            whole = task + 2 * c * omega * (before - anchor)
            sizes = [p.numel() for p in parameters]
            for p, g in zip(parameters, whole.split(sizes), strict=True):
                p.grad = g.view_as(p)
            optimizer.step()
            path -= task * (flat(parameters) - before)
        reached = flat(parameters)
        omega = torch.clamp(omega + path / ((reached - anchor) ** 2 + xi), min=0)
        anchor = reached

    train(torch.optim.AdamW(parameters, lr=lr), *domains[0], steps=1)
    with torch.no_grad():  # the source's path was walked to measure it
        for p, w in zip(parameters, deployed, strict=True):
            p.copy_(w)
    anchor = flat(parameters)

    more = {"optimizer_state": "kept", "loss_classes": "all"}
    method = Si(SiConfig(penalty=c, damping=xi, learning_rate=lr, epochs=2, **more))
    method.prepare(model, view(*domains[0]))
    torch.testing.assert_close(method.plugin.importance, omega, rtol=1e-6, atol=1e-12)
    assert omega.sum() > 0
    assert torch.equal(flat(model.module.parameters()), anchor)

    optimizer = torch.optim.AdamW(parameters, lr=lr)
    for domain in domains[1:]:
        train(optimizer, *domain, steps=2)
    adapt(method, *(view(*domain) for domain in domains[1:]))
    torch.testing.assert_close(
        flat(model.module.parameters()), flat(parameters), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(method.plugin.importance, omega, rtol=1e-5, atol=1e-9)


def test_without_source_epochs_the_source_is_not_protected(model, data, view):
    method = Si(SiConfig(source_epochs=0))
    method.prepare(model, view(*data(6)))
    assert not method.plugin.importance.any()


def test_avalanches_own_plugin_measures_no_path_on_a_cpu():
    """Why the equations are ours; when this fails, its plugin may be worth another look."""
    from avalanche.training.plugins import SynapticIntelligencePlugin

    net = nn.Linear(3, 2)
    plugin, excluded = SynapticIntelligencePlugin(1.0), set()
    plugin.create_syn_data(net, plugin.ewc_data, plugin.syn_data, excluded)
    plugin.pre_update(net, plugin.syn_data, excluded)
    net(torch.ones(1, 3)).sum().backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.1 * p.grad
    plugin.post_update(net, plugin.syn_data, excluded)
    assert not plugin.syn_data["trajectory"]["weight"].data.any()
