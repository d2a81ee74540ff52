"""Experience replay: the loss over both batches, and what the reservoirs hold."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.replay import Replay, ReplayConfig


def test_updates_follow_the_mean_loss_over_both_batches(model, data, view, adapt):
    """The memory is smaller than a batch here, so that each step meets all of it."""
    (xs, ys), (x, y) = data(5), data(6, seed=2)
    plain = model.clone().module
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
    for _ in range(3):
        losses = [cross_entropy(plain(a[None]), b[None]) for a, b in zip(x, y, strict=True)]
        losses += [cross_entropy(plain(a[None]), b[None]) for a, b in zip(xs, ys, strict=True)]
        optimizer.zero_grad()
        (sum(losses) / 11).backward()
        optimizer.step()
    method = Replay(ReplayConfig(learning_rate=0.01, epochs=3))
    method.prepare(model, view(xs, ys))
    adapt(method, view(x, y))
    for p, expected in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


def places(kept, x, y):
    """Where the samples stand in their domain; they must be distinct and keep their labels."""
    found = [int((x == row).all(dim=1).nonzero()) for row in kept.x]
    assert len(set(found)) == len(found)
    assert torch.equal(kept.y, y[found])
    return set(found)


def test_the_memory_is_shared_equally_and_old_reservoirs_shrink(model, data, view, adapt):
    given = [data(20), data(20, seed=2), data(20, seed=3)]
    method = Replay(ReplayConfig(memory_size=8, epochs=1))
    method.prepare(model, view(*given[0], batch_size=10))
    assert [len(g) for g in method.plugin.groups] == [8]
    first = places(method.plugin.groups[0], *given[0])
    sizes = []
    for domain in given[1:]:
        adapt(method, view(*domain, batch_size=10))
        sizes.append([len(g) for g in method.plugin.groups])
    assert sizes == [[4, 4], [3, 3, 2]]
    for kept, domain in zip(method.plugin.groups, given, strict=True):
        places(kept, *domain)
    assert places(method.plugin.groups[0], *given[0]) <= first


def test_a_domain_smaller_than_its_share_is_kept_whole(model, data, view, adapt):
    method = Replay(ReplayConfig(memory_size=20, epochs=1))
    method.prepare(model, view(*data(20)))
    adapt(method, view(*data(3, seed=2)))
    assert [len(g) for g in method.plugin.groups] == [10, 3]


def test_every_sample_is_as_likely_to_be_kept(data, view):
    """A reservoir keeps each of 10 samples with probability 3/10."""
    from bench.methods.avalanche.loop import Experience
    from bench.methods.avalanche.memory import ViewSamples
    from bench.methods.avalanche.plugins import Reservoirs

    x, y = data(10)
    strategy = type("Strategy", (), {"experience": Experience(ViewSamples(view(x, y)))})()
    generator, kept = torch.Generator().manual_seed(0), torch.zeros(10)
    for _ in range(400):
        plugin = Reservoirs(3, generator)
        plugin.after_training_exp(strategy)
        kept[list(places(plugin.groups[0], x, y))] += 1
    assert (kept / 400).numpy() == pytest.approx(0.3, abs=0.1)  # four standard deviations
