"""A-GEM against Chaudhry et al. (ICLR 2019), eq. (11)."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from bench.methods.agem import Agem, AgemConfig


def gradient(net, x, y):
    loss = cross_entropy(net(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def stored_gradient(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def test_a_clashing_gradient_loses_its_part_along_the_memorys(model, data, view, adapt):
    """The reference batch is the whole memory here: the source and the first domain."""
    x, y = data(8)
    other = (x, (y + 1) % 3)
    config = AgemConfig(epochs=1, learning_rate=0.01, patterns_per_domain=8, sample_size=100)
    method = Agem(config)
    method.prepare(model, view(x, y))
    adapt(method, view(x, y))
    net = model.clone().module
    g, r = gradient(net, *other), gradient(net, x, y)
    along = sum(a * b for a, b in zip(g.tolist(), r.tolist(), strict=True))
    length = sum(b * b for b in r.tolist())
    assert along < 0

    adapt(method, view(*other))
    got = stored_gradient(model.module)
    torch.testing.assert_close(got, g - along / length * r, rtol=1e-6, atol=1e-9)
    assert abs(float(got @ r)) < 1e-9


def test_a_gradient_that_agrees_stays(model, data, view, adapt):
    net = model.clone().module
    method = Agem(AgemConfig(epochs=1))
    method.prepare(model, view(*data(8)))
    adapt(method, view(*data(8)))
    torch.testing.assert_close(
        stored_gradient(model.module), gradient(net, *data(8)), rtol=1e-9, atol=0
    )


def test_memory_and_reference_batches(model, data, view, adapt):
    """A sample of each domain is kept; a reference batch holds distinct ones of all of them."""
    method = Agem(AgemConfig(patterns_per_domain=5, sample_size=6, epochs=1))
    method.prepare(model, view(*data(12), batch_size=4))
    adapt(method, view(*data(3, seed=2), batch_size=4))
    assert [len(kept) for kept in method.plugin.buffers] == [5, 3]
    memory = torch.cat([kept.x for kept in method.plugin.buffers])
    labels = torch.cat([kept.y for kept in method.plugin.buffers])
    met = set()
    for _ in range(30):
        batch, counts = method.plugin.sample_from_memory()
        places = [int((memory == row).all(dim=1).nonzero()) for row in batch.x]
        assert len(set(places)) == len(places) == sum(counts) == 6
        assert counts[0] == sum(place < 5 for place in places)
        assert torch.equal(batch.y, labels[places])
        met.update(places)
    assert met == set(range(8))
