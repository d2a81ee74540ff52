"""DER++ against Buzzega et al. (NeurIPS 2020), and what its buffer holds."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from bench.methods.der import Der, DerConfig


def test_updates_follow_the_three_terms(model, data, view, adapt):
    """CE + alpha mean (f - z)^2 + beta CE; the memory is smaller than a batch: all of it is met."""
    (xs, ys), (x, y) = data(5), data(6, seed=2)
    alpha, beta = 0.7, 0.4
    plain = model.clone().module
    with torch.no_grad():
        z = plain(xs)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
    for _ in range(3):
        old = plain(xs)
        distance = sum((old[i, c] - z[i, c]) ** 2 for i in range(5) for c in range(3)) / 15
        loss = cross_entropy(plain(x), y) + alpha * distance + beta * cross_entropy(old, ys)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    method = Der(DerConfig(alpha=alpha, beta=beta, learning_rate=0.01, epochs=3))
    method.prepare(model, view(xs, ys))
    adapt(method, view(x, y))
    for p, expected in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


def test_the_buffer_is_balanced_over_classes_and_keeps_the_logits_of_its_time(
    model, data, view, adapt
):
    x, y = data(30)
    given = [(x, y % 2), data(30, seed=2)]  # the source has no class 2
    method = Der(DerConfig(memory_size=9, epochs=1, learning_rate=0.01))
    policy = None
    outputs = []
    for n, domain in enumerate(given):
        if n == 0:
            method.prepare(model, view(*domain, batch_size=10))
        else:
            adapt(method, view(*domain, batch_size=10))
        with torch.no_grad():
            outputs.append(model.module(domain[0]))
        policy = method.strategy.storage_policy
        sizes = {c: len(b.buffer) for c, b in policy.buffer_groups.items()}
        assert sizes == ({0: 5, 1: 4} if n == 0 else {0: 3, 1: 3, 2: 3})
    everything = torch.cat([domain[0] for domain in given])
    logits = torch.cat(outputs)
    met = []
    for label, buffer in policy.buffer_groups.items():
        kept = buffer.buffer
        assert (kept.y == label).all()
        found = [int((everything == row).all(dim=1).nonzero()) for row in kept.x]
        torch.testing.assert_close(kept.logits, logits[found], rtol=1e-9, atol=0)
        met += found
    assert len(set(met)) == 9


def test_with_beta_0_it_is_der(model, data, view, adapt):
    """Labels in memory then play no part."""
    twin = model.clone()
    x, y = data(6)
    methods = [Der(DerConfig(beta=0.0, learning_rate=0.01)) for _ in range(2)]
    methods[0].prepare(model, view(x, y))
    methods[1].prepare(twin, view(x, y))
    for group in methods[1].strategy.storage_policy.groups:
        group.y = (group.y + 1) % 3
    for method in methods:
        adapt(method, view(*data(6, seed=2)))
    assert torch.equal(model.module.head.weight, twin.module.head.weight)
