"""Accuracies to expect, from simulated retrainings on shifted source data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from bench.contracts.data import DomainView
from bench.contracts.stream import Domain, ShiftedSource, Split
from bench.errors import BenchError
from bench.methods.multi_app import simulate
from bench.methods.multi_app.method import MultiApp
from bench.methods.multi_app.simulate import ITERATIONS, fitted
from bench.run.window import Window

from .conftest import samples

Prepared = Callable[..., MultiApp]


def shifted(key: str = "a") -> ShiftedSource:
    def make() -> list[Domain]:
        splits = [Split(*samples(8, 3, seed)) for seed in (20, 21, 22, 23)]
        for i, split in enumerate(splits):
            split.x["image"].mul_(0.5 + 0.1 * (i // 2))
        return [Domain("one", *splits[:2]), Domain("two", *splits[2:])]

    return ShiftedSource(key, make)


def test_a_curve_that_is_exact_is_found() -> None:
    half = float(simulate.HALVES[20])
    rise = np.array(ITERATIONS) / (np.array(ITERATIONS) + half)
    levels = fitted((0.0, 0.9), [0.5 + 0.3 * rise, 0.4 + 0.45 * rise])
    assert levels.half_iterations == half
    assert levels.start == pytest.approx((0.5, 0.4), abs=1e-9)
    assert levels.ceiling == pytest.approx((0.8, 0.85), abs=1e-9)


def test_a_fit_is_scipys_but_for_the_grid_of_halves() -> None:
    rng = np.random.default_rng(0)
    t = np.array(ITERATIONS, dtype=float)
    seen = np.array([0.5, 0.45, 0.3])[:, None] + np.array([0.3, 0.2, 0.4])[:, None] * t / (t + 9)
    seen = seen + 0.01 * rng.standard_normal(seen.shape)

    def away(p: np.ndarray) -> Any:
        return (p[:3, None] + p[3:6, None] * t / (t + np.exp(p[6])) - seen).ravel()

    best = least_squares(away, [0.4, 0.4, 0.4, 0.3, 0.3, 0.3, 2.0])
    levels = fitted((0.0, 0.5, 0.9), seen)
    assert np.log(levels.half_iterations) == pytest.approx(best.x[6], abs=0.06)
    assert levels.start == pytest.approx(best.x[:3], abs=2e-3)
    gain = np.subtract(levels.ceiling, levels.start)
    assert gain == pytest.approx(best.x[3:6], abs=1e-2)


def test_a_loss_is_no_gain_and_accuracies_stay_in_range() -> None:
    levels = fitted((0.0, 0.9), [[0.6, 0.5, 0.4, 0.3, 0.2], [0.0, 0.6, 0.9, 0.98, 1.0]])
    assert levels.start[0] == levels.ceiling[0] == pytest.approx(0.4)
    assert 0 <= levels.start[1] < levels.ceiling[1] <= 1


def test_simulations_are_a_plain_loop_cached_and_leave_all_as_it_was(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = prepared("apps-greedy", estimate="confidence")
    before = plain.apps[0].model.module.state_dict()
    method = prepared("apps-greedy", shifted=shifted(), estimate="simulated")
    after = method.apps[0].model.module.state_dict()
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    assert torch.equal(plain.source.rng_state, method.source.rng_state)
    assert method.shifted_source is None
    levels = method.groups[0].expected
    assert levels is not None
    assert levels.sparsities == (0.0, 0.9)
    app, found = plain.apps[0], []
    torch.manual_seed(0)
    with app.source.preserve_rng():
        for sparsity in (0.0, 0.9):
            runs = []
            for domain in shifted().make():
                mine = (domain.adaptation.x["app"] == 0).nonzero().squeeze(1)
                x = {name: t[mine] for name, t in domain.adaptation.x.items()}
                generator = torch.Generator().manual_seed(0)
                view = DomainView("d", x, None, app.source.batch_size, generator)
                simulate.make_proxy(app, view, sparsity)
                retraining = simulate.Retraining(app)
                target, source, scores = view.infinite(), app.source.infinite(), []
                own = domain.test.x["app"] == 0
                for step in range(max(ITERATIONS) + 1):
                    if step in ITERATIONS:
                        app.model.train(False)
                        with torch.no_grad():
                            guess = app.model(domain.test.x).argmax(dim=1)
                        scores.append(float((guess == domain.test.y)[own].float().mean()))
                    if step < max(ITERATIONS):
                        app.model.train()
                        retraining.step(next(target), next(source))
                runs.append(scores)
            found.append(np.mean(runs, axis=0))
    assert np.array(levels.seen) == pytest.approx(np.array(found))

    def never(*_: Any) -> None:
        raise AssertionError("was cached")

    monkeypatch.setattr(simulate, "_simulated", never)
    again = prepared("apps-genetic", shifted=shifted(), estimate="simulated")
    assert again.groups[0].expected == levels
    with pytest.raises(AssertionError, match="was cached"):
        prepared("apps-genetic", shifted=shifted("b"), estimate="simulated")


def test_a_window_is_planned_by_them_without_a_probe(
    prepared: Prepared, domain: Callable[..., DomainView], open_window: Callable[..., Window]
) -> None:
    method = prepared("apps-edgeta", shifted=shifted(), estimate="simulated")
    with open_window(method, 1.0) as window:
        method.adapt(domain(), window)
    assert "probe" not in method.section_s
    levels, plan = method.groups[0].expected, method.plan
    assert levels is not None
    assert plan is not None
    for given in plan.assignments:
        level = levels.sparsities.index(given.sparsity)
        rise = given.iterations / (given.iterations + levels.half_iterations)
        start, ceiling = levels.start[level], levels.ceiling[level]
        assert given.accuracy == pytest.approx(start + (ceiling - start) * rise)
    assert method.details()["expected"]["half_iterations"] == levels.half_iterations


def test_nothing_to_simulate_on_is_an_error_with_its_cure(prepared: Prepared) -> None:
    with pytest.raises(BenchError, match=r"no shifted source data .* set estimate: confidence"):
        prepared("apps-edgeta", estimate="simulated")
