"""LAME against Boudiaf et al. (CVPR 2022): the fixed point of its bound, in plain loops."""

from __future__ import annotations

import math

import pytest
import torch

from bench.methods.lame import (
    Lame,
    LameConfig,
    laplacian_adjustment,
    nearest_neighbour_affinity,
)


def plain_affinity(features, neighbours):
    rows = features.tolist()
    table = [[0.0] * len(rows) for _ in rows]
    for i, a in enumerate(rows):
        cosines = []
        for j, b in enumerate(rows):
            lengths = math.sqrt(sum(v * v for v in a)) * math.sqrt(sum(v * v for v in b))
            if i != j:
                cosines.append((sum(u * v for u, v in zip(a, b, strict=True)) / lengths, j))
        for _, j in sorted(cosines, reverse=True)[:neighbours]:
            table[i][j] = 1.0
    return table


def plain_adjustment(q, affinity, rounds):
    z = q
    for _ in range(rounds):
        new = []
        for i, row in enumerate(q):
            pull = [sum(w * z[j][k] for j, w in enumerate(affinity[i])) for k in range(len(row))]
            scores = [p * math.exp(a) for p, a in zip(row, pull, strict=True)]
            new.append([s / sum(scores) for s in scores])
        z = new
    return z


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_affinity_matches_loops(neighbours):
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = nearest_neighbour_affinity(features, neighbours)
    assert got.tolist() == plain_affinity(features, neighbours)


def test_equal_samples_are_each_others_neighbours_and_never_their_own():
    features = torch.ones(3, 4)
    assert nearest_neighbour_affinity(features, 2).tolist() == (1 - torch.eye(3)).tolist()


def test_prediction_is_the_fixed_point_of_the_loops(model, data):
    x, _ = data(12)
    logits, features = model.with_features(x)
    q = logits.detach().softmax(dim=1).tolist()
    expected = plain_adjustment(q, plain_affinity(features.detach(), 3), rounds=300)
    method = Lame(LameConfig(neighbours=3, max_iterations=10_000))
    method.prepare(model, None)
    with torch.no_grad():
        got = method.predict(x)
    torch.testing.assert_close(got.exp(), torch.tensor(expected).double(), rtol=0, atol=1e-5)
    assert (got.exp() - logits.detach().softmax(dim=1)).abs().max() > 0.05


@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_iterations_are_bounded(rounds):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(8, 3, generator=generator, dtype=torch.float64).softmax(dim=1)
    affinity = torch.tensor(plain_affinity(torch.randn(8, 4, generator=generator), 5)).double()
    got = laplacian_adjustment(q.log(), affinity, rounds, tolerance=0.0).exp()
    expected = torch.tensor(plain_adjustment(q.tolist(), affinity.tolist(), rounds)).double()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


def test_a_clear_neighbourhood_overrules_a_doubtful_sample():
    """The samples of a cluster agree on its class though one of them leans to the other."""
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0]])
    q = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.2, 0.8]])
    adjusted = laplacian_adjustment(q.log(), nearest_neighbour_affinity(features, 1), 100)
    assert adjusted.argmax(dim=1).tolist() == [0, 0, 0, 1, 1]


def test_one_sample_alone_is_predicted_by_the_model(model, data):
    x, _ = data(1)
    method = Lame(LameConfig())
    method.prepare(model, None)
    with torch.no_grad():
        torch.testing.assert_close(method.predict(x), model(x).log_softmax(dim=1))


def test_adaptation_costs_nothing(model, data, view, adapt):
    method = Lame(LameConfig())
    method.prepare(model, view(data(4)[0]))
    assert adapt(method, view(data(8)[0])).counts == {}
