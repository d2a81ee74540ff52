"""Steps between two selections are taken as one loop: the same steps and costs, fewer looks."""

from __future__ import annotations

import pytest
import torch

from bench.methods.elastic.elastic_window import ElasticWindow
from bench.methods.elastic.twins import ElasticFineTune, ElasticFineTuneConfig
from bench.run.window import Window


@pytest.fixture
def run(model, view, data, adapt, monkeypatch):
    """Weights, tracker and number of looks at the weights, with ``n`` samples in batches of 4."""

    def made(n: int, each_alone: bool, budget_s: float = 1e9):
        looks = []
        with monkeypatch.context() as patch:
            look = Window._sample_weights
            patch.setattr(Window, "_sample_weights", lambda w: looks.append(1) or look(w))
            if each_alone:
                patch.setattr(ElasticWindow, "_alike", lambda *_: 0)
            settings = {"epochs": 6, "select_interval": 2, "cost_ratio": 0.6}
            method = ElasticFineTune(ElasticFineTuneConfig(**settings))
            torch.manual_seed(0)
            method.prepare(model.clone(), view(*data(20, 2)))
            tracker = adapt(method, view(*data(n), batch_size=4), budget_s=budget_s)
        return method, tracker, len(looks)

    return made


@pytest.mark.parametrize("n", [40, 42])  # of 42 the last batch of a pass has 2
def test_weights_and_costs_are_those_of_single_steps(run, n):
    (one, costs, many), (other, same, few) = (run(n, each_alone=alone) for alone in (True, False))
    for (name, value), again in zip(
        one.model.module.named_parameters(), other.model.module.parameters(), strict=True
    ):
        assert torch.equal(value, again), name
    assert one.elastic == other.elastic
    assert one.elastic["selections"] == 3
    assert dict(costs.counts) == dict(same.counts)
    assert same.counts.total() == (60 if n == 40 else 66) + 4  # a profile, three choices
    assert dict(costs.devices[0].time_by_kind) == dict(same.devices[0].time_by_kind)
    assert (few < many / 2) if n == 40 else (few == many)


def test_a_window_that_closes_in_between_ends_after_the_same_steps(run):
    _, whole, _ = run(40, each_alone=True)
    budget = 0.6 * whole.devices[0].window.time_s
    (one, costs, _), (other, same, _) = (run(40, alone, budget) for alone in (True, False))
    assert 12 < same.counts["adapt"] == costs.counts["adapt"] < whole.counts["adapt"]
    assert same.devices[0].window.time_s == costs.devices[0].window.time_s <= budget
    for value, again in zip(
        one.model.module.parameters(), other.model.module.parameters(), strict=True
    ):
        assert torch.equal(value, again)
