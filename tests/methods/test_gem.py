"""GEM against Lopez-Paz and Ranzato (NeurIPS 2017) and a solver that tries every active set."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy

from bench.methods.gem import Gem, GemConfig


def gradient(net, x, y):
    loss = cross_entropy(net(x), y)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])


def stored_gradient(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def solve_by_active_sets(g, memories, margin):
    """g + M^T v, v minimising v^T (M M^T + ridge) v / 2 + v^T M g over v >= margin (eq. 11)."""
    count = len(memories)
    quadratic = memories @ memories.t() + 1e-3 * torch.eye(count, dtype=g.dtype)
    linear = memories @ g
    best, solution = float("inf"), None
    for free in itertools.product([False, True], repeat=count):
        inside = torch.tensor(free)
        v = torch.full((count,), margin, dtype=g.dtype)
        if inside.any():
            fixed = quadratic[inside][:, ~inside] @ v[~inside]
            v[inside] = torch.linalg.solve(quadratic[inside][:, inside], -linear[inside] - fixed)
        if (v >= margin - 1e-12).all():
            value = float(0.5 * v @ quadratic @ v + linear @ v)
            if value < best:
                best, solution = value, v
    return g + solution @ memories


@pytest.fixture
def domains(data):
    """The source, and two domains with its inputs but other labels, so that gradients clash."""
    x, y = data(8)
    return [(x, y), (x, (y + 1) % 3), (x + 0.1, (y + 2) % 3)]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_the_gradient_is_projected_as_the_program_says(margin, model, domains, view, adapt):
    method = Gem(GemConfig(margin=margin, epochs=1, learning_rate=0.01))
    method.prepare(model, view(*domains[0]))
    adapt(method, view(*domains[1]))
    net = model.clone().module  # before the step on the third
    g = gradient(net, *domains[2])
    memories = torch.stack([gradient(net, *domain) for domain in domains[:2]])
    assert (memories @ g < 0).any()
    expected = solve_by_active_sets(g, memories, margin)

    adapt(method, view(*domains[2]))
    got = stored_gradient(model.module)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    weight = torch.linalg.lstsq(memories.t(), (got - g).unsqueeze(1)).solution.squeeze(1)
    assert (weight >= margin - 1e-6).all()
    # Non-negative products but for the ridge of the authors' code, which stands for -1e-3 v.
    assert (memories @ got >= -1e-3 * weight - 1e-9).all()


def test_a_gradient_that_hurts_nobody_stays(model, domains, view, adapt):
    net = model.clone().module
    method = Gem(GemConfig(epochs=1, learning_rate=0.01))
    method.prepare(model, view(*domains[0]))
    adapt(method, view(*domains[0]))
    torch.testing.assert_close(
        stored_gradient(model.module), gradient(net, *domains[0]), rtol=1e-9, atol=0
    )


def test_memories_are_distinct_samples_of_each_domain(model, data, view, adapt):
    method = Gem(GemConfig(patterns_per_domain=5, epochs=1))
    given = [data(12), data(3, seed=2)]
    method.prepare(model, view(*given[0], batch_size=4))
    adapt(method, view(*given[1], batch_size=4))
    for t, (x, y) in enumerate(given):
        kept = method.plugin.memory_x[t]
        places = [int((x == row).all(dim=1).nonzero()) for row in kept]
        assert len(set(places)) == len(places) == min(5, len(x))
        assert torch.equal(method.plugin.memory_y[t], y[places])


def test_the_step_grows_with_the_domains(model, data, view, adapt):
    """Each memory costs a pass, which the first step of each window counts anew."""
    method = Gem(GemConfig(epochs=1))
    method.prepare(model, view(*data(8)))
    flops = [adapt(method, view(*data(8, seed=s)))._traces["adapt", (8, 6)].flops for s in (2, 3)]
    assert flops[1] > 1.3 * flops[0]


def test_the_memories_gradients_are_let_go(model, data, view, adapt):
    method = Gem(GemConfig(epochs=1))
    method.prepare(model, view(*data(8)))
    adapt(method, view(*data(8, seed=2)))
    assert method.plugin.G.numel() == 0
