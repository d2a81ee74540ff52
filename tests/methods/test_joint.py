"""Joint training: what its batches are drawn from, how many there are, and what is kept."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from bench.methods.joint import Joint, JointConfig


def test_batches_come_from_the_union_and_are_as_many_as_elsewhere(model, data, view, adapt):
    given = [data(12), data(7, seed=2), data(5, seed=3)]
    everything = torch.cat([x for x, _ in given])
    labels = torch.cat([y for _, y in given])
    method = Joint(JointConfig(epochs=40))
    method.prepare(model, view(*given[0], batch_size=4))
    met, sizes = [], []

    def noting(batch, compose=method.compose):
        x, y = compose(batch)
        places = [int((everything == row).all(dim=1).nonzero()) for row in x]
        assert len(set(places)) == len(places)
        assert torch.equal(y, labels[places])
        met[-1].update(places)
        sizes[-1].append(len(x))
        return x, y

    method.compose = noting
    for domain in given[1:]:
        met.append(set())
        sizes.append([])
        adapt(method, view(*domain, batch_size=4))
    assert met == [set(range(19)), set(range(24))]
    assert sizes == [[4, 3] * 40, [4, 1] * 40]


def test_updates_follow_cross_entropy_over_the_union(model, data, view, adapt):
    """With one sample of the source and of the domain a step, all that is drawn is known."""
    (xs, ys), (x, y) = data(3), data(3, seed=2)
    plain = model.clone().module
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01)
    drawn = []
    method = Joint(JointConfig(learning_rate=0.01, epochs=2))
    method.prepare(model, view(xs, ys))

    def noting(batch, compose=method.compose):
        drawn.append(compose(batch))
        return drawn[-1]

    method.compose = noting
    adapt(method, view(x, y))
    for a, b in drawn:
        optimizer.zero_grad()
        cross_entropy(plain(a), b).backward()
        optimizer.step()
    for p, expected in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)


def test_domains_are_kept_whole_and_the_source_on_storage(model, data, view, adapt):
    source = view(*data(12))
    method = Joint(JointConfig(epochs=1))
    method.prepare(model, source)
    given = [data(7, seed=2), data(5, seed=3)]
    adapt(method, *(view(*domain) for domain in given))
    for kept, (x, y) in zip(method.plugin.domains, given, strict=True):
        assert torch.equal(kept.x, x)
        assert torch.equal(kept.y, y)
    assert method.source is source
