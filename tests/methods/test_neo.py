"""NEO: the mean feature of what arrived is taken away before the classifier."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods.neo import Neo, NeoConfig


def features_of(module, x):
    return torch.tanh(module.norm(module.body(x)))


@pytest.mark.parametrize("centroid", ["cumulative", "moving"])
def test_predictions_are_those_of_the_formula(model, view, adapt, data, centroid):
    (first, _), (second, _), (test, _) = data(20, 1), data(20, 2), data(7, 3)
    twin = copy.deepcopy(model.module).eval()
    method = Neo(NeoConfig(centroid=centroid))
    method.prepare(model, view(first))
    adapt(method, view(first, batch_size=20), view(second, batch_size=20))
    with torch.no_grad():
        means = [features_of(twin, x).mean(dim=0) for x in (first, second)]
        if centroid == "cumulative":
            mean = features_of(twin, torch.cat([first, second])).mean(dim=0)
        else:
            mean = 0.9 * 0.1 * means[0] + 0.1 * means[1]
        expected = nn.functional.linear(
            features_of(twin, test) - mean, twin.head.weight, twin.head.bias
        )
    torch.testing.assert_close(method.predict(test), expected, rtol=1e-9, atol=1e-12)


def test_no_weight_changes_and_predictions_teach_nothing(model, view, adapt, data):
    x, _ = data(20)
    before = copy.deepcopy(model.module.state_dict())
    method = Neo(NeoConfig())
    method.prepare(model, view(x))
    adapt(method, view(x))
    first = method.predict(x[:5])
    method.predict(x * 9)
    assert torch.equal(method.predict(x[:5]), first)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


def test_a_head_that_is_not_linear_is_named(model, view, data):
    model.module.head = nn.Sequential(model.module.head)
    with pytest.raises(Unsupported, match="neo moves the input of a linear head"):
        Neo(NeoConfig()).prepare(model, view(data(4)[0]))
