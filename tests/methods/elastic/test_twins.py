"""Elastic twins: what a step trains, what the choice rests on, and that nothing else moves."""

from __future__ import annotations

import copy

import pydantic
import pytest
import torch

from bench import BenchError, Window
from bench.methods.elastic.importance import Probe
from bench.methods.elastic.selection import backward_share
from bench.methods.elastic.twins import (
    ElasticFeatureAlignment,
    ElasticFeatureAlignmentConfig,
    ElasticFineTune,
    ElasticFineTuneConfig,
    ElasticTent,
    ElasticTentConfig,
    GreenTrainer,
    GreenTrainerConfig,
)
from bench.methods.feature_alignment import FeatureAlignment, FeatureAlignmentConfig
from bench.methods.fine_tune import FineTune, FineTuneConfig
from bench.methods.tent import Tent, TentConfig


@pytest.fixture
def labelled(data, view):
    x, y = data(40)
    return view(x, y, batch_size=10)


def weights(method):
    return {n: p.detach().clone() for n, p in method.model.module.named_parameters()}


def fine_tuned(model, view, data, adapt, domain, **settings):
    method = ElasticFineTune(ElasticFineTuneConfig(**settings))
    method.prepare(model, view(*data(20, 2)))
    return method, adapt(method, domain)


@pytest.mark.parametrize(
    ("plain", "settings", "twin", "more"),
    [
        (FineTune, FineTuneConfig, ElasticFineTune, ElasticFineTuneConfig),
        (Tent, TentConfig, ElasticTent, ElasticTentConfig),
        (FeatureAlignment, FeatureAlignmentConfig, ElasticFeatureAlignment,
         ElasticFeatureAlignmentConfig),
    ],
)  # fmt: skip
def test_with_all_tensors_it_is_its_method(
    model, view, data, adapt, plain, settings, twin, more, monkeypatch
):
    """All are chosen where the whole step may be had and each is of importance."""
    seen = []
    for kind, made in ((plain, settings(epochs=2)),
                       (twin, more(epochs=2, cost_ratio=1.0, select_by="uniform"))):  # fmt: skip
        method = kind(made)
        method.prepare(model.clone(), view(*data(20, 2), batch_size=10, seed=5))
        x, y = data(40)
        domain = view(x, y if method.needs == ("target_labels",) else None, batch_size=10)
        adapt(method, domain)
        seen.append(weights(method))
    for name, value in seen[0].items():
        assert torch.allclose(value, seen[1][name], rtol=0, atol=1e-12), name


def test_what_is_not_selected_is_bit_identical_after_50_steps(
    model, view, data, adapt, monkeypatch
):
    x, y = data(40)
    domain = view(x, y, batch_size=4)
    settings = {"epochs": 5, "select_interval": 100, "cost_ratio": 0.5}
    method, snapshots = ElasticFineTune(ElasticFineTuneConfig(**settings)), []
    method.prepare(model, view(*data(20, 2)))
    take = method.optimizer.step

    def step(*args, **kwargs):
        snapshots.append(weights(method))
        return take(*args, **kwargs)

    monkeypatch.setattr(method.optimizer, "step", step)
    tracker = adapt(method, domain)
    assert tracker.counts["probe"] == 1
    assert tracker.counts["adapt"] == 49
    end, chosen = weights(method), set(method.elastic["selected"])
    assert chosen
    assert chosen != set(end)
    for name, value in snapshots[1].items():  # after the probe, an ordinary step of all
        assert torch.equal(value, end[name]) == (name not in chosen), name
        assert not torch.equal(value, snapshots[0][name])


def test_the_chosen_are_those_of_most_importance_that_fit(model, view, data, adapt, labelled):
    """The probe by hand: -g dw of the first step of AdamW."""
    x, y = data(40)
    twin = model.clone()
    method, _ = fine_tuned(
        model, view, data, adapt, view(x, y, batch_size=40), epochs=1, cost_ratio=0.6
    )
    optimizer = torch.optim.AdamW(twin.module.parameters(), lr=3e-4)
    before = [p.detach().clone() for p in twin.module.parameters()]
    twin.train()
    order = view(x, y, batch_size=40).batches()
    batch = next(order)
    torch.nn.functional.cross_entropy(twin(batch.x), batch.y).backward()
    optimizer.step()
    expected = {
        name: -float((p.grad * (p.detach() - old)).sum())
        for (name, p), old in zip(twin.module.named_parameters(), before, strict=True)
    }
    found = method.elastic
    assert found["selections"] == 1
    assert all(value > 0 for value in expected.values())
    left_out = set(expected) - set(found["selected"])
    assert left_out
    # No tensor that was left out could take the place of one that costs as much and gives less
    (costs,) = found["costs"].values()
    place = {name: k for k, name in enumerate(costs["names"])}
    for out in left_out:
        for name in found["selected"]:
            cheaper = costs["dw"][place[out]] <= costs["dw"][place[name]]
            nearer = costs["before"][place[out]] <= costs["before"][place[name]]
            if cheaper and nearer:
                assert expected[out] <= expected[name] * (1 + 1e-9)


def test_importance_to_first_order_is_the_loss_that_undoing_a_step_brings_back(model, data):
    """Of the smooth loss of a network in double precision."""
    x, y = data(60)
    model.train()
    parameters = dict(model.module.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), lr=1e-3)

    def loss():
        return torch.nn.functional.cross_entropy(model(x), y)

    probe = Probe(model.module, parameters)
    first = loss()
    first.backward()
    with probe.first():
        optimizer.step()
    after = loss()
    found = {k: float(v) for k, v in probe.importance("taylor").items()}
    assert sum(found.values()) == pytest.approx(float(first - after), rel=0.02)
    for name, p in parameters.items():
        moved = p.detach().clone()
        with torch.no_grad():
            p.add_(1e-3 * p.grad)  # the step of SGD, undone
            rise = float(loss() - after)
            p.copy_(moved)
        assert found[name] == pytest.approx(rise, rel=0.05, abs=1e-9)


def test_kinds_of_importance_by_hand(model, data):
    x, y = data(30)
    parameters = dict(model.module.named_parameters())
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    before = {n: p.detach().clone() for n, p in parameters.items()}
    probe = Probe(model.module, parameters)
    torch.nn.functional.cross_entropy(model(x), y).backward()
    with probe.first():
        optimizer.step()
    for name, p in parameters.items():
        g = p.grad
        expected = {"taylor": 0.1 * g.square().sum(), "weight": before[name].abs().sum(),
                    "gradient": g.abs().sum(), "uniform": torch.ones(())}  # fmt: skip
        for kind, value in expected.items():
            assert float(probe.importance(kind)[name]) == pytest.approx(float(value), rel=1e-9)
    assert all(0 <= float(v) < 1 for v in probe.importance("random").values())


def test_the_published_two_passes_leave_weights_buffers_and_optimizer_bit_identical(model, data):
    x, y = data(30)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
    ).double()
    parameters = dict(network.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.01)

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    step()
    state = copy.deepcopy(network.state_dict()), copy.deepcopy(optimizer.state_dict())
    probe = Probe(network, parameters, undone=True)
    with probe.first():
        step()
    moved = {n: p.detach().clone() for n, p in parameters.items()}
    with probe.second():
        step()
    gradients = {n: p.grad.clone() for n, p in parameters.items()}
    found = probe.importance("two-pass")
    probe.undo()
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[0][name]), name
    for key, kept in optimizer.state_dict()["state"].items():
        for name, value in kept.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(state[1]["state"][key][name])
            )
    for name, g in gradients.items():
        change = moved[name] - state[0][name]
        assert float(found[name]) == pytest.approx(-float((g * change).sum()), rel=1e-9)


def test_two_passes_take_a_probe_of_their_own(model, view, data, adapt, labelled):
    twin = model.clone()
    method, tracker = fine_tuned(
        model, view, data, adapt, labelled, epochs=1, cost_ratio=1.0, select_by="two-pass"
    )
    assert tracker.counts["probe"] == 1
    assert tracker.counts["adapt"] == 4  # as many as fine-tune has
    plain = FineTune(FineTuneConfig(epochs=1))
    plain.prepare(twin, view(*data(20, 2)))
    x, y = data(40)
    adapt(plain, view(x, y, batch_size=10))
    chosen = set(method.elastic["selected"])
    for name, value in weights(plain).items():
        same = torch.allclose(value, weights(method)[name], atol=1e-12)
        assert same or chosen != set(weights(plain)), name


def test_it_selects_at_each_domain_and_after_its_interval(model, view, data, adapt):
    x, y = data(40)
    domains = [view(x, y, batch_size=10), view(x + 1, y, batch_size=10)]
    domains[1].name = "another"
    method = ElasticFineTune(ElasticFineTuneConfig(epochs=5, select_interval=2))
    method.prepare(model, view(*data(20, 2)))
    tracker = adapt(method, *domains)
    assert tracker.counts["probe"] == 2 * 3  # passes 1, 3 and 5
    assert tracker.counts["adapt"] == 2 * (20 - 3)
    assert tracker.counts["profile"] == 1
    assert tracker.counts["select"] == 6
    told = method.details()["elastic"]
    assert told["selections"] == 6
    assert told["predicted"] <= told["asked"] == 0.5
    assert max(told["times_selected"].values()) <= 6


def test_a_selected_step_is_charged_what_it_computes(model, view, data, adapt):
    """On the modelled device, by the operations of each step."""
    x, y = data(400)
    costs = []
    for ratio in (1.0, 0.5):
        method = ElasticFineTune(
            ElasticFineTuneConfig(epochs=1, cost_ratio=ratio, select_by="uniform")
        )
        method.prepare(model.clone(), view(*data(20, 2)))
        tracker = adapt(method, view(x, y, batch_size=20))
        costs.append(tracker.flops)
    assert costs[1] < 0.75 * costs[0]


@pytest.mark.parametrize("samples", [40, 38])
def test_every_step_is_charged_its_own_selection(model, view, data, adapt, samples):
    """As if each were counted: also where a last batch of 8 comes after batches of 10."""
    x, y = data(samples)
    settings = {"epochs": 6, "select_interval": 2, "select_by": "random"}
    totals = []
    for always in (False, True):
        torch.manual_seed(0)
        method = ElasticFineTune(ElasticFineTuneConfig(**settings))
        method.prepare(model.clone(), view(*data(20, 2)))
        if always:
            steps = Window.step

            def step(self, batch, kind="adapt", data_dependent=False, steps=steps):
                return steps(self, batch, kind, data_dependent=True)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Window, "step", step)
                tracker = adapt(method, view(x, y, batch_size=10))
        else:
            tracker = adapt(method, view(x, y, batch_size=10))
        assert method.elastic["selections"] == 3
        totals.append((tracker.flops, tracker.launches))
    assert totals[0] == totals[1]


def test_an_early_stopped_probe_trains_only_what_the_budget_reaches(model, view, data, adapt):
    x, y = data(40)
    probes, found = [], []
    for kind in ("whole", "early-stopped"):
        settings = {"epochs": 1, "cost_ratio": 0.5, "probe": kind}
        method = GreenTrainer(GreenTrainerConfig(**settings))
        method.prepare(model.clone(), view(*data(20, 2)))
        before = weights(method)
        adapt(method, view(x, y, batch_size=40))  # the probe alone
        after = weights(method)
        probes.append({name for name in after if not torch.equal(after[name], before[name])})
        found.append(method.elastic)
    (costs,) = found[1]["costs"].values()
    backward = sum(costs["dw"]) + costs["before"][-1]
    limit = backward_share(0.5, costs["forward"], backward) * backward
    within = {n for n, way in zip(costs["names"], costs["before"], strict=True) if way <= limit}
    assert probes == [set(costs["names"]), within]
    assert within < set(costs["names"])
    assert found[0]["selected"] == found[1]["selected"]


def test_a_budget_that_cannot_be_is_an_error(model, view, data, adapt, labelled):
    with pytest.raises(BenchError, match=r"cost_ratio 0.1 of a training step: its forward pass"):
        fine_tuned(model, view, data, adapt, labelled, cost_ratio=0.1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cost": "energy"}, "give cost_device"),
        ({"cost_device": "xavier-nx"}, "operations is counted; leave the device out"),
        ({"cost_ratio": 0.0}, "greater than 0"),
        ({"cost_ratio": 1.1}, "less than or equal to 1"),
        ({"select_by": "luck"}, "two-pass"),
    ],
)
def test_settings_that_cannot_be_say_why(settings, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        ElasticFineTuneConfig(**settings)


def test_no_setting_of_a_method_is_one_of_the_selection(model):
    own = set(ElasticFineTuneConfig.model_fields) - set(FineTuneConfig.model_fields)
    from bench.methods.edgeta.config import EdgeTAConfig

    for settings in (TentConfig, FeatureAlignmentConfig, EdgeTAConfig):
        assert not own & set(settings.model_fields)
