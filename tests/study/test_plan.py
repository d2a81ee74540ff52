"""What a plan says of the trainings that devices share, and of the time that this saves."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.records.cell import Cell
from bench.study.plan import Plan, make_cells
from bench.study.selection import Selection
from bench.study.suite import load_suite

MODES = ["xavier-nx@10w", "xavier-nx@20w", "raspberry-pi-5"]


def planned(devices: list[str], **changes: Any) -> Plan:
    """Tent and SHOT of the smoke suite, seed 0, with nothing done yet."""
    suite, path = load_suite("smoke")
    methods = [r for r in suite.methods if r.name in ("tent", "shot")]
    changes |= {"devices": devices, "methods": methods, "supervised_references": [], "seeds": (0,)}
    suite = suite.model_copy(update=changes)
    cells = make_cells(suite, path)
    return Plan(suite, path, cells, {}, cells)


def ran(plan: Plan, method: str, *seconds: float) -> list[Any]:
    """Earlier runs of a method that took so long."""
    cell = next(c for c in plan.cells if c.method.name == method)
    return [SimpleNamespace(status="ok", template=_template(cell), wall_s=each) for each in seconds]


def _template(cell: Cell) -> Any:
    return SimpleNamespace(key=cell.identity, cell=cell)


def test_devices_share_a_training_and_the_estimate_says_what_that_saves() -> None:
    plan = planned(MODES)
    assert len(plan.cells) == 6
    assert [len(group) for group in plan.shared_runs()] == [3, 3]
    history = [*ran(plan, "tent", 3.0, 5.0, 40.0), *ran(plan, "shot", 7.0)]
    found = plan.estimate(history, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert (found.total_s, found.saved_s) == (5.0 + 7.0, 2 * (5.0 + 7.0))
    assert (found.trainings, found.scaled, found.unknown) == (2, 0, 0)
    assert [found.wall_s(jobs) for jobs in (1, 2, 16)] == [12.0, 7.0, 7.0]


def test_a_measured_device_shares_with_nobody() -> None:
    found = planned(["xavier-nx", "host"]).estimate([], lambda: {"tent": 2.0, "shot": 3.0})
    assert (found.total_s, found.saved_s) == (10.0, 0.0)
    assert (found.trainings, found.scaled, found.unknown) == (4, 4, 0)


def test_what_has_no_time_is_counted_apart() -> None:
    plan = planned(MODES)
    found = plan.estimate(ran(plan, "tent", 4.0), dict)
    assert (found.total_s, found.saved_s, found.unknown) == (4.0, 8.0, 1)
    nothing = plan.estimate([], dict)
    assert (nothing.total_s, nothing.saved_s, nothing.unknown) == (0.0, 0.0, 2)


def adapted(plan: Plan, method: str, device: str, *domains: tuple[str, int, bool]) -> Any:
    """An earlier run on a device: name, steps and whether the window closed, of each domain."""
    cell = next(c for c in plan.cells if c.method.name == method and c.device == device)
    cell = cell.model_copy(update={"seed": 7})
    return SimpleNamespace(status="ok", template=_template(cell), windows=domains)


def test_windows_that_closed_in_earlier_runs_are_foretold_with_what_the_method_wants() -> None:
    plan = planned(MODES)
    slow, fast, other = MODES
    history = [
        adapted(plan, "tent", slow, ("a", 12, True), ("b", 16, True), ("c", 9, False)),
        adapted(plan, "tent", fast, ("a", 40, False), ("b", 40, False)),
        adapted(plan, "shot", other, ("a", 3, True)),
    ]
    title, *lines = plan.window_note(history).splitlines()
    assert "these windows close before the method is done" in title
    assert {line.strip() for line in lines} == {
        f"shot · digits-vit · {other}: after 3 steps in a domain",
        f"tent · digits-vit · {slow}: after 14 of 40 steps in a domain",
    }
    assert plan.window_note(history[1:2]) == ""
    assert planned([fast]).window_note(history) == ""


@pytest.mark.parametrize("given", [{"gpus": "0"}, {"per_gpu": 2}])
def test_a_plan_refuses_gpus_of_runs_on_the_cpu_as_a_run_does(
    given: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=r"--(gpus 0|per-gpu 2): runs are on the CPU; add"):
        Selection("smoke", store=tmp_path, **given).plan()
