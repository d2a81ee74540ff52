"""Devices that share a training: what is wrong with one of them costs the others no result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from workplace import Workplace

from bench import BenchError, registry
from bench.costs.device_profile import PROFILES
from bench.records.cell import Cell
from bench.records.record import Record
from bench.run import run_cell
from bench.study.selection import Selection


@pytest.fixture
def place(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workplace]:
    monkeypatch.chdir(workplace.folder)
    monkeypatch.setenv("BENCH_CACHE", workplace.environment["BENCH_CACHE"])
    with registry.isolated():
        yield workplace


def board(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text((PROFILES / "xavier-nx.yaml").read_text())
    return path


def outcomes(*devices: str, before_the_run: Any = None) -> dict[str, Record]:
    """Records of one training for several devices, by the name of the device."""
    selection = Selection(
        suite="tiny.yaml", devices=devices, methods=("shot",), seeds=(0,), store=Path("store"),
        plugins=(Path("plugin.py"),),
    )  # fmt: skip
    plan, store = selection.plan()
    (job,) = plan.jobs(store)
    if before_the_run is not None:
        before_the_run()
    run_cell.run_job(job)
    return {record.cell.device_title: record for record in store}


def test_a_profile_that_is_spoiled_before_the_run_fails_alone(place: Workplace) -> None:
    odd = board(place.folder, "odd")
    found = outcomes(
        "jetson-tx2", "odd.yaml", "agx-orin", before_the_run=lambda: odd.write_text("name: [")
    )
    assert {name: r.status for name, r in found.items()} == {
        "jetson-tx2": "ok", "odd": "failed", "agx-orin": "ok",
    }  # fmt: skip
    assert "odd.yaml" in found["odd"].reason
    assert "not valid YAML" in found["odd"].reason


def test_results_that_cannot_be_made_on_one_device_fail_alone(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    results_on = run_cell.results_on

    def fragile(device: Any, *rest: Any) -> Any:
        if device.name == "agx-orin":
            raise ZeroDivisionError("no samples")
        return results_on(device, *rest)

    monkeypatch.setattr(run_cell, "results_on", fragile)
    found = outcomes("agx-orin", "xavier-nx", "jetson-tx2")
    assert found["agx-orin"].reason == "ZeroDivisionError: no samples"
    assert [found[name].status for name in ("xavier-nx", "jetson-tx2")] == ["ok", "ok"]
    assert found["xavier-nx"].results.domains != found["jetson-tx2"].results.domains
    assert found["xavier-nx"].results.mean("after") == found["jetson-tx2"].results.mean("after")


def test_a_device_without_a_price_leaves_the_others_theirs(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers that no profile file may hold, for what the ranges of files do not foresee."""
    planned_device = run_cell.planned_device

    def load(cell: Cell) -> Any:
        device = planned_device(cell)
        if cell.device != "agx-orin":
            return device
        content = device.model_dump()
        content["launch_overhead"]["value"] = 1e308
        return type(device).model_validate(content)

    monkeypatch.setattr(run_cell, "planned_device", load)
    found = outcomes("xavier-nx", "agx-orin")
    assert found["xavier-nx"].status == "ok"
    assert found["agx-orin"].status == "failed"
    assert "has no price on agx-orin: it takes inf s" in found["agx-orin"].reason


def test_a_spoiled_profile_is_refused_before_anything_runs(place: Workplace) -> None:
    content = yaml.safe_load((PROFILES / "xavier-nx.yaml").read_text())
    content["bandwidth"]["value"] = 59.7
    (place.folder / "odd.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(BenchError, match=r"if it is in GB/s, write 5.97e\+10"):
        outcomes("xavier-nx", "odd.yaml")
    assert not list(place.folder.glob("store/records/*.json"))
