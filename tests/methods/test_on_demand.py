"""On-demand adaptation: when the detector fires by its formula, and what it then does and costs."""

from __future__ import annotations

import copy
import io
import math

import pydantic
import pytest
import torch

from bench import registry
from bench.conformance.method_fixture import MethodFixture
from bench.methods.on_demand import INNER, OnDemand, OnDemandConfig
from bench.methods.tent import Tent, TentConfig

RATE = 0.2


def entropies(model, x):
    with torch.no_grad():
        p = model.module(x).softmax(dim=1)
    return -(p * p.log()).sum(dim=1)


@pytest.fixture
def pool(model, data):
    """Inputs from the most certain prediction to the least."""
    with torch.no_grad():
        model.module.head.weight *= 4
    model.train(False)
    x = data(400)[0]
    return x[entropies(model, x).argsort()]


def prepared(model, view, source, **settings):
    method = OnDemand(OnDemandConfig(**settings))
    method.prepare(model, view(source, batch_size=50))
    return method


def plain_detector(h, means, sizes, threshold):
    """By the formulas of an EWMA chart: number of the first batch that is out of its limit."""
    average, centre = float(h.mean()), float(h.mean())
    spread = math.sqrt(float(((h - h.mean()) ** 2).mean()))
    for t, (mean, n) in enumerate(zip(means, sizes, strict=True), start=1):
        average = (1 - RATE) * average + RATE * mean
        width = RATE / (2 - RATE) * (1 - (1 - RATE) ** (2 * t))
        if average > centre + threshold * spread / math.sqrt(n) * math.sqrt(width):
            return t
    return None


@pytest.mark.parametrize("threshold", [0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 30.0])
def test_it_fires_where_the_formula_says(model, view, adapt, pool, threshold):
    source, domain = pool[::2], pool[150:230]
    h = entropies(model, source)
    parts = entropies(model, domain).split(10)
    first = plain_detector(h, [float(p.mean()) for p in parts], [10] * 8, threshold)
    method = prepared(model, view, source, threshold=threshold)
    tracker = adapt(method, view(domain, batch_size=10))
    assert tracker.counts["detect"] == (first or 8)
    assert tracker.counts["adapt"] == (8 if first else 0)
    assert tracker.counts["reference"] == (8 if first else 0)
    counts = {"looks": first or 8, "domains": 1, "fired": int(first is not None)}
    assert method.details() == {"on_demand": counts}


def test_thresholds_of_the_test_above_lie_on_both_sides(model, view, pool):
    h, parts = entropies(model, pool[::2]), entropies(model, pool[150:230]).split(10)
    means = [float(p.mean()) for p in parts]
    found = {plain_detector(h, means, [10] * 8, t) for t in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 30.0)}
    assert None in found
    assert len(found) > 2


def test_where_it_fires_it_is_the_inner_method(model, view, adapt, pool):
    twin = model.clone()
    plain = Tent(TentConfig(learning_rate=0.01, epochs=2))
    plain.prepare(twin, view(pool[::2]))
    inner = {"learning_rate": 0.01, "epochs": 2}
    method = prepared(model, view, pool[::2], inner_settings=inner)
    for each in (plain, method):
        adapt(each, view(pool[-60:], batch_size=20))
    ours, theirs = model.module.state_dict(), twin.module.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(method.predict(pool[:9]), plain.predict(pool[:9]))


def test_where_it_does_not_fire_nothing_but_forward_passes_is_spent(model, view, adapt, pool):
    before = copy.deepcopy(model.module.state_dict())
    method = prepared(model, view, pool[::2])
    tracker = adapt(method, view(pool[:60], batch_size=20), view(pool[:60], batch_size=20))
    assert dict(tracker.counts) == {"detect": 6}
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    fired = prepared(model, view, pool[::2])
    dearer = adapt(fired, view(pool[-60:], batch_size=20))
    assert dict(dearer.counts) == {"detect": 1, "adapt": 3, "reference": 3}
    assert dearer.flops > 1.1 * 7 * tracker.flops / 6 > 0


def test_after_an_adaptation_the_adapted_model_is_the_reference(model, view, adapt, pool):
    domain = pool[-60:]
    method = prepared(model, view, pool[::2], inner_settings={"learning_rate": 1e-5})
    of_source = method.reference, method.spread
    assert method.reference == pytest.approx(float(entropies(model, pool[::2]).mean()))
    adapt(method, view(domain, batch_size=20))
    assert method.reference == pytest.approx(float(entropies(model, domain).mean()))
    assert method.average == method.reference > of_source[0]
    assert method.spread >= of_source[1]
    again = adapt(method, view(domain, batch_size=20))
    assert dict(again.counts) == {"detect": 3}


def test_the_average_goes_on_from_domain_to_domain(model, view, adapt, pool):
    whole, parts = (prepared(model.clone(), view, pool[::2], threshold=1e6) for _ in range(2))
    adapt(whole, view(pool[100:160], batch_size=20))
    adapt(parts, *(view(each, batch_size=20) for each in pool[100:160].split(20)))
    assert parts.average == whole.average
    assert (parts.since, parts.looks, parts.domains) == (3, 3, 3)


def test_a_window_ends_its_looks_and_the_adaptation(model, view, adapt, pool):
    method = prepared(model.clone(), view, pool[::2], threshold=1e6)
    whole = adapt(method, view(pool[-60:], batch_size=20)).devices[0].window.time_s
    method = prepared(model.clone(), view, pool[::2], threshold=1e6)
    tracker = adapt(method, view(pool[-60:], batch_size=20), budget_s=whole * 2.5 / 3)
    assert dict(tracker.counts) == {"detect": 2}
    method = prepared(model.clone(), view, pool[::2])
    tracker = adapt(method, view(pool[-60:], batch_size=20), budget_s=whole / 3)
    assert dict(tracker.counts) == {"detect": 1}
    assert method.fired == 1
    assert method.reference < method.average  # that of the source still


@pytest.mark.parametrize(
    "inner",
    [pytest.param(name, marks=[] if name == "tent" else [pytest.mark.slow]) for name in INNER],
)
def test_a_restart_changes_no_bit(inner):
    """On images, by every method that may adapt."""
    subject = MethodFixture("on-demand")
    subject.method_class = type("Other", (OnDemand,), {"Config": OnDemandConfig})
    subject.method_class.conformance_config = {"inner": inner, "threshold": 0.0}
    ends = []
    for resumed in (False, True):
        method = subject.prepare()
        subject.adapt(method, subject.view(0))
        if resumed:
            file = io.BytesIO()
            torch.save(method.state(), file)
            file.seek(0)
            method = subject.prepare()
            method.load_state(torch.load(file, weights_only=True))
        subject.adapt(method, subject.view(1))
        ends.append((subject.predict(method, subject.inputs(1)), method.average, method.looks))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]
    assert ends[0][2] >= 2


def test_only_settings_that_differ_are_kept_and_wrong_ones_are_named():
    default = TentConfig().learning_rate
    given = {"learning_rate": default, "epochs": 3}
    assert OnDemandConfig(inner_settings=given).inner_settings == {"epochs": 3}
    with pytest.raises(pydantic.ValidationError, match=r"inner_settings[\s\S]*rate_of_learning"):
        OnDemandConfig(inner_settings={"rate_of_learning": 1})


def test_inner_methods_need_nothing_that_it_does_not_declare():
    for name in INNER:
        assert registry.load("method", name) is INNER[name]
        assert not INNER[name].needs
        assert set(INNER[name].tasks) <= set(OnDemand.tasks)


def test_it_applies_where_the_inner_method_does():
    cell = MethodFixture("on-demand").cell("digits-shift", "periodic", False)
    assert OnDemand.skip(cell) is None
    elsewhere = MethodFixture("on-demand").cell("class-incremental", "periodic", False)
    assert OnDemand.skip(elsewhere).startswith("on-demand adapts by tent: tent adapts to a stream")
