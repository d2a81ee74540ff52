"""A window of several applications: what is planned, what is done, and what is charged."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch

from bench.conformance.behaviour import first_difference
from bench.contracts.data import DomainView
from bench.errors import Unsupported
from bench.methods.multi_app.method import MultiApp
from bench.run.window import Window

Prepared = Callable[..., MultiApp]
Domain = Callable[..., DomainView]
Open = Callable[..., Window]
ALL = ["apps-edgeta", "apps-genetic", "apps-greedy", "apps-uniform", "apps-ekya", "apps-recl"]
SECONDS = 0.12
"""On xavier-nx: an iteration takes about 4 ms here, and 18 are wanted."""


@pytest.mark.parametrize("name", ALL)
def test_every_window_keeps_the_constraints(
    prepared: Prepared, domain: Domain, open_window: Open, name: str
) -> None:
    method = prepared(name, min_share=0.1)
    for number in range(3):
        # The first window also profiles.
        seconds = SECONDS + (0.1 if number == 0 else 0.0)
        with open_window(method, seconds) as window:
            method.adapt(domain(number), window)
            spent = window.spent_s
        plan = method.plan
        assert plan is not None
        shares = [a.share for a in plan.assignments]
        assert sum(shares) <= 1 + 1e-9
        assert min(shares) >= 0.1 - 1e-9
        made = list(method.made.values())
        assert len(made) == 3
        for done, given in zip(made, plan.assignments, strict=True):
            assert 0 <= done <= given.iterations
        assert sum(made) >= 2
        late = method.section_s["feedback"] if number == 0 else 0.0  # nobody knew its price yet
        assert spent <= seconds + late + 1e-3
    assert method.decision_cpu_s > 0


def test_a_longer_window_than_is_wanted_gives_all_their_passes_whatever_the_clock_says(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    method = prepared("apps-edgeta")
    with open_window(method, 1e9) as window:
        method.adapt(domain(), window)
    assert method.made == {0: 6, 1: 6, 2: 6}  # 3 passes of 2 batches


def test_what_the_sections_took_is_kept_free_in_the_next_window(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    method = prepared("apps-uniform", epochs=100)
    for number in range(2):
        with open_window(method, 0.4) as window:
            method.adapt(domain(number), window)
            spent = window.spent_s
    assert 0.3 < spent <= 0.4 + 1e-3


def test_ekya_pays_for_its_profiling_out_of_the_window(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    made = {}
    for name in ("apps-ekya", "apps-uniform"):
        method = prepared(name, epochs=100)
        for number in range(2):
            with open_window(method, 1.6) as window:
                method.adapt(domain(number), window)
        made[name] = sum(method.made.values())
        assert method.plan is not None
        assert (method.plan.profiling_s > 0) == (name == "apps-ekya")
    assert made["apps-ekya"] < made["apps-uniform"]


def test_what_ekya_falls_back_to_is_charged_and_told(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    paid = {}
    for fallback in ("charged", "free"):
        method = prepared("apps-ekya", ekya_fallback=fallback, epochs=100)
        for number in range(2):
            with open_window(method, 0.3) as window:
                method.adapt(domain(number), window)
        assert method.plan is not None
        paid[fallback] = method.plan.profiling_s
        details = method.details()
        assert sum(details["fallbacks"].values()) == 2
        (note,) = details["notes"]
        done = {"charged": "profiled nevertheless", "free": "taken unprofiled"}[fallback]
        assert note.startswith(
            "ekya in 2 of 2 windows: profiling one level of each job takes more than "
        )
        assert note.endswith(done)
    assert paid["free"] == 0 < paid["charged"]
    assert "notes" not in prepared("apps-greedy").details()


def test_a_window_too_short_for_any_plan_is_refused(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    method = prepared()
    window = open_window(method, 0.01)
    with pytest.raises(Unsupported, match=r"lengthen|longer than the whole window"):
        method.adapt(domain(), window)


def test_an_application_without_samples_rests(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    method = prepared()
    view = domain(apps=2)
    with open_window(method, 1.0) as window:
        method.adapt(view, window)
    assert list(method.made) == [0, 1]
    x = domain(1).x
    assert method.predict(x).shape == (48, 3)


def test_a_method_goes_on_from_its_state_bit_for_bit(
    prepared: Prepared, domain: Domain, open_window: Open
) -> None:
    straight, resumed = prepared(), prepared()
    with open_window(straight, 0.4) as window:
        straight.adapt(domain(0), window)
    stream = io.BytesIO()
    torch.save(straight.state(), stream)
    stream.seek(0)
    resumed.load_state(torch.load(stream, weights_only=True))
    assert resumed.halves == straight.halves
    assert resumed.groups[0].profile == straight.groups[0].profile
    ends = []
    for method in (straight, resumed):
        torch.manual_seed(1)
        with open_window(method, 0.4) as window:
            method.adapt(domain(1), window)
        ends.append({**method.model.module.state_dict(), "out": method.predict(domain(2).x)})
    assert first_difference(*ends) is None
    assert straight.made == resumed.made


def test_the_decision_is_told(
    prepared: Prepared, domain: Domain, open_window: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    method = prepared("apps-greedy")
    with open_window(method, 0.4) as window:
        method.adapt(domain(), window)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("window-1: greedy decided in ")
    assert "s of CPU: app0 sparsity" in line
