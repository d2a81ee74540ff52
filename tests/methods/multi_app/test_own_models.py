"""Applications with tasks and models of their own: what they share, and what each has alone."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_workloads import SEVERAL, several_streams

from bench import registry
from bench.conformance.behaviour import first_difference
from bench.contracts.data import DomainView, take
from bench.contracts.stream import Domain, ShiftedSource, Stream
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.methods.edgeta.method import EdgeTA
from bench.methods.edgeta.offline import weights_of
from bench.methods.multi_app.feedback import joint_feedback, task_agnostic
from bench.methods.multi_app.method import MultiApp
from bench.run.window import Window
from bench.tasks.applications import ApplicationModels, own_inputs, owners

from .conftest import QUICK

BATCH, APPS = 8, 3
SECONDS = 1.0
"""On the board below an iteration takes 9 to 20 ms."""
Open = Callable[..., Window]


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Stream:
    stream_class = registry.load("stream", "several-tasks")
    choices = several_streams(tmp_path_factory.mktemp("several"))
    made: Stream = stream_class(stream_class.Config(streams=choices), 0)
    return made


@pytest.fixture
def prepared(stream: Stream, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A method on three models, prepared; ``shifted``: domains to simulate retrainings on."""
    monkeypatch.setenv("BENCH_CACHE", str(cache))

    def make(
        name: str = "apps-edgeta", shifted: list[Domain] | None = None, **settings: Any
    ) -> MultiApp:
        model_class = registry.load("model", "several-models")
        torch.manual_seed(0)
        model = model_class.build_for(model_class.Config(models=list(SEVERAL)), stream)
        method_class = registry.load("method", name)
        method: MultiApp = method_class(method_class.Config(**{**QUICK, **settings}))
        if shifted is not None:
            method.shifted_source = ShiftedSource("own models", lambda: shifted)
        split = stream.source().adaptation
        generator = torch.Generator().manual_seed(0)
        method.prepare(model, DomainView("source", split.x, split.y, BATCH, generator))
        return method

    return make


@pytest.fixture
def open_window() -> Open:
    """A window of a slow board for each method, on which iterations of different models differ."""
    trackers: dict[int, CostTracker] = {}

    def make(method: MultiApp, seconds: float) -> Window:
        device = load_device("raspberry-pi-4b")
        tracker = trackers.setdefault(id(method), make_tracker([device], method.stored))
        return Window(tracker, seconds, None, lambda: method.model.module)

    return make


@pytest.fixture
def domain(stream: Stream) -> DomainView:
    split = stream.domain("window-1").adaptation
    return DomainView("window-1", split.x, None, BATCH, torch.Generator().manual_seed(1))


def test_each_application_is_prepared_as_if_it_were_alone(
    prepared: Callable[..., MultiApp], stream: Stream
) -> None:
    method = prepared()
    split = stream.source().adaptation
    model_class = registry.load("model", "several-models")
    torch.manual_seed(0)
    model = model_class.build_for(model_class.Config(models=list(SEVERAL)), stream)
    y_of = [
        lambda y: y[:, 1],
        lambda y: y[:, 1:],
        lambda y: torch.nn.functional.one_hot(y[:, 1], 4),
    ]
    for app in range(APPS):
        mine = (owners(split.x) == app).nonzero().squeeze(1)
        x, y = take(own_inputs(split.x, app), mine), y_of[app](split.y[mine])
        y = y.float() if app == 2 else y
        source = DomainView("source", x, y, BATCH, torch.Generator().manual_seed(0))
        single = EdgeTA(
            EdgeTA.Config(**{k: v for k, v in QUICK.items() if k in EdgeTA.Config.model_fields})
        )
        single.config = method.config
        single.prepare(model.models[app], source)
        mine_of, theirs = method.apps[app], single
        assert type(mine_of.fm) is type(model.models[app])
        for mine_model, their_model in ((mine_of.fm, theirs.fm), (mine_of.kb, theirs.kb)):
            expected = weights_of(their_model)
            for name, tensor in weights_of(mine_model).items():
                torch.testing.assert_close(tensor, expected[name], msg=name)
        assert len(mine_of.source) == len(source)


@pytest.mark.parametrize("estimate", ["confidence", "simulated"])
def test_a_scheduler_is_given_the_costs_and_accuracies_of_each(
    prepared: Callable[..., MultiApp],
    stream: Stream,
    domain: DomainView,
    open_window: Open,
    estimate: str,
) -> None:
    shifted = [stream.domain("window-1")] if estimate == "simulated" else None
    method = prepared("apps-greedy", estimate=estimate, shifted=shifted, epochs=100)
    assert [group.members for group in method.groups] == [[0], [1], [2]]
    given: list[Any] = []
    solver = method._solver()

    class Told:
        def solve(self, problem: Any, seed: int) -> Any:
            given.append(problem)
            return solver.solve(problem, seed=seed)

    method._solver = Told  # type: ignore[assignment, method-assign]
    with open_window(method, SECONDS) as window:
        method.adapt(domain, window)
    (problem,) = given
    costs = [a.seconds_per_iteration for a in problem.applications]
    full = sorted(seconds[0] for seconds in costs)
    assert full[1] > 1.1 * full[0]
    assert full[2] > 1.1 * full[1]
    assert costs == [group.profile[0] for group in method.groups if group.profile]
    memory = [a.memory_bytes for a in problem.applications]
    assert len(set(memory)) == APPS
    ceilings = [a.accuracy for a in problem.applications]
    assert len(set(ceilings)) > 1
    if estimate == "simulated":
        expected = [group.expected for group in method.groups]
        assert ceilings == [e.ceiling for e in expected if e is not None]
    told = method.details()
    assert [told[f"app{app}"]["seconds_per_iteration"] for app in range(APPS)] == [
        list(c) for c in costs
    ]


def test_a_window_that_is_long_enough_gives_all_their_passes(
    prepared: Callable[..., MultiApp], domain: DomainView, open_window: Open
) -> None:
    method = prepared()
    with open_window(method, 1e9) as window:
        method.adapt(domain, window)
    count = owners(domain.x).bincount().tolist()
    assert method.made == {app: 3 * (n // BATCH) for app, n in enumerate(count)}


def test_a_short_window_is_kept_and_divided(
    prepared: Callable[..., MultiApp], domain: DomainView, open_window: Open
) -> None:
    method = prepared(epochs=100, min_share=0.1)
    for number in range(2):
        with open_window(method, SECONDS) as window:
            method.adapt(domain, window)
            spent = window.spent_s
        plan = method.plan
        assert plan is not None
        shares = [a.share for a in plan.assignments]
        assert sum(shares) <= 1 + 1e-9
        assert min(shares) >= 0.1 - 1e-9
        # Nobody knew the price of feedback yet, nor that of a proxy of the sparsity chosen.
        late = method.section_s["feedback"] + 0.02 if number == 0 else 0.0
        assert spent <= SECONDS + late + 1e-3
    assert {"proxy app0", "proxy app1", "proxy app2", "probe app1", "feedback"} <= set(
        method.section_s
    )


def test_predictions_are_those_of_each_applications_proxy(
    prepared: Callable[..., MultiApp], domain: DomainView, open_window: Open
) -> None:
    method = prepared()
    with open_window(method, SECONDS) as window:
        method.adapt(domain, window)
    x = take(domain.x, torch.arange(len(domain)))
    with torch.no_grad():
        outputs = method.predict(x)
        assert isinstance(method.model, ApplicationModels)
        for app, form in enumerate(method.model.forms):
            mine = (x["app"] == app).nonzero().squeeze(1)
            own = method.apps[app].model(take(own_inputs(x, app), mine))
            assert torch.equal(form.own_outputs(outputs[mine]), own)


@torch.no_grad()
def test_feedback_mixes_no_two_models(
    prepared: Callable[..., MultiApp], domain: DomainView, open_window: Open
) -> None:
    """Their parameters have equal names and shapes in part, and still are not averaged."""
    method, other = prepared(), prepared()
    for each in (method, other):
        torch.manual_seed(1)
        for app in each.apps:
            for p in app.model.module.parameters():
                p.add_(0.1 * torch.randn(p.shape))
    names = [
        {n: t.shape for n, t in weights_of(app.fm).items() if task_agnostic(app, n)}
        for app in method.apps
    ]
    alike = [n for n in names[1] if all(each.get(n) == names[1][n] for each in names)]
    assert len(alike) > 3
    for app in other.apps:
        assert app.give_to_model()
        app.take_from_model()
    with open_window(method, 1e9) as window:
        method.adapt = None  # type: ignore[assignment, method-assign]
        with window.section("feedback"):
            for group in method.groups:
                joint_feedback([method.apps[app] for app in group.members])
    for mine, theirs in zip(method.apps, other.apps, strict=True):
        for model, expected in ((mine.fm, theirs.fm), (mine.kb, theirs.kb)):
            wanted = weights_of(expected)
            assert all(torch.equal(t, wanted[n]) for n, t in weights_of(model).items())
    first, second = (weights_of(app.fm) for app in method.apps[:2])
    assert any(not torch.equal(first[name], second[name]) for name in alike)


def test_a_method_goes_on_from_its_state_bit_for_bit(
    prepared: Callable[..., MultiApp], domain: DomainView, open_window: Open
) -> None:
    straight, resumed = prepared(), prepared()
    with open_window(straight, SECONDS) as window:
        straight.adapt(domain, window)
    stream = io.BytesIO()
    torch.save(straight.state(), stream)
    stream.seek(0)
    resumed.load_state(torch.load(stream, weights_only=True))
    assert [g.profile for g in resumed.groups] == [g.profile for g in straight.groups]
    ends, state = [], domain.rng_state
    for method in (straight, resumed):
        torch.manual_seed(1)
        domain.rng_state = state
        with open_window(method, SECONDS) as window:
            method.adapt(domain, window)
        with torch.no_grad():
            out = method.predict(take(domain.x, torch.arange(len(domain))))
        ends.append({**method.model.module.state_dict(), "out": out})
    assert first_difference(*ends) is None
    assert straight.made == resumed.made
