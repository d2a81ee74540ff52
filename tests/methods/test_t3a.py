"""T3A against Iwasawa & Matsuo (NeurIPS 2021) with the supports in plain lists."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods.t3a import T3a, T3aConfig, most_certain


def unit(values):
    length = math.sqrt(sum(v * v for v in values))
    return [v / length for v in values]


def entropy_of(logits):
    total = sum(math.exp(z) for z in logits)
    return -sum(math.exp(z) / total * math.log(math.exp(z) / total) for z in logits)


def plain_supports(model, batches, count):
    """The support sets after the batches: {class: [(entropy, unit feature)]}."""
    head = model.head
    weights = head.weight.detach()
    sets = {
        k: [(entropy_of((head.weight @ w + head.bias).tolist()), unit(w.tolist()))]
        for k, w in enumerate(weights)
    }
    for x in batches:
        logits, features = model.with_features(x)
        for row, feature in zip(logits.tolist(), features.tolist(), strict=True):
            sets[row.index(max(row))].append((entropy_of(row), unit(feature)))
        sets = {k: sorted(kept)[:count] for k, kept in sets.items()}
    return sets


@pytest.mark.parametrize("count", [1, 2, 100])
def test_prediction_by_centroids_of_the_most_certain_supports(model, data, view, adapt, count):
    x, _ = data(20)
    batches = [batch.x for batch in view(x, batch_size=8).batches()]
    with torch.no_grad():
        sets = plain_supports(model, batches, count)
        test = data(6, seed=5)[0]
        _, features = model.with_features(test)
    expected = []
    for feature in features.tolist():
        row = []
        for k in range(3):
            centroid = unit([sum(v) for v in zip(*(s for _, s in sets[k]), strict=True)])
            row.append(sum(a * b for a, b in zip(feature, centroid, strict=True)))
        expected.append(row)

    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    method = T3a(T3aConfig(supports=count))
    method.prepare(model, view(data(4)[0]))
    tracker = adapt(method, view(x, batch_size=8))
    with torch.no_grad():
        got = method.predict(test)
    torch.testing.assert_close(got, torch.tensor(expected).double(), rtol=1e-6, atol=1e-9)
    assert tracker.counts == {"adapt": 3}
    assert len(method.supports) == sum(len(kept) for kept in sets.values())
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_before_adaptation_the_classifiers_rows_are_the_centroids(model, data, view):
    x, _ = data(5)
    method = T3a(T3aConfig())
    method.prepare(model, view(x))
    _, features = model.with_features(x)
    rows = torch.tensor([unit(w) for w in model.head.weight.tolist()]).double()
    torch.testing.assert_close(method.predict(x), features @ rows.t(), rtol=1e-6, atol=1e-9)


def test_the_lowest_entropies_of_each_label_are_kept():
    entropies = torch.tensor([0.5, 0.1, 0.3, 0.1, 0.9, 0.2])
    labels = torch.tensor([2, 0, 2, 0, 1, 2])
    assert most_certain(entropies, labels, 2).tolist() == [1, 3, 4, 5, 2]
    assert most_certain(entropies, labels, 1).tolist() == [1, 4, 5]


def test_memory_is_bounded_and_holds_no_slices(model, data, view, adapt):
    method = T3a(T3aConfig(supports=2))
    method.prepare(model, view(data(4)[0]))
    for seed in range(4):
        adapt(method, view(data(30, seed=seed)[0], batch_size=10))
    assert len(method.supports) <= 6
    assert method.supports.untyped_storage().nbytes() == method.supports.numel() * 8


def test_a_head_that_is_not_linear_is_refused_with_a_cure(model, data, view):
    model.module.head = nn.Sequential(nn.Linear(8, 3))
    with pytest.raises(Unsupported, match="that of TinyModel is Sequential; use shot or lame"):
        T3a(T3aConfig()).prepare(model, view(data(4)[0]))
