"""Three applications of different tasks on one board, end to end under every scheduler."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_workloads import write_several

from bench import run_suite

SCHEDULED = ("apps-edgeta", "apps-genetic", "apps-greedy", "apps-uniform", "apps-ekya", "apps-recl")
SHORT = {
    "lora_steps": 2, "kb_steps": 4, "index_steps": 4, "levels": 2, "epochs": 10,
    "max_residual": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "scheduled", [("apps-edgeta", "apps-ekya"), pytest.param(SCHEDULED, marks=pytest.mark.slow)]
)
def test_every_scheduler_divides_a_board_among_three_tasks(
    tmp_path: Path, scheduled: tuple[str, ...]
) -> None:
    first, *others = ({"name": name, **SHORT} for name in scheduled)
    confident = [{**each, "estimate": "confidence"} for each in others]
    methods = ["source-only", "tent", first, *confident]
    suite = write_several(tmp_path, methods, ["fine-tune"], window_s=0.7)
    found = run_suite(suite, store=tmp_path / "store", executor="inline")
    records = {record.cell.method.name: record for record in found.records}
    status = {name: (record.status, record.reason) for name, record in records.items()}
    for name in ("source-only", *scheduled):
        assert status[name][0] == "ok", status
        results = records[name].results
        assert results is not None
        of_each = [results.further(f"application-{app}") for app in range(3)]
        assert all(each is not None and math.isfinite(each) for each in of_each)
        after = results.mean("after")
        assert after == pytest.approx(sum(each for each in of_each if each is not None) / 3)
        assert bool(results.costs.steps) == (name in scheduled)
    for name in ("tent", "fine-tune"):
        assert status[name][0] == "unsupported"
        assert "stream several-tasks is several-tasks: take a method" in str(status[name][1])


def test_labels_may_be_kept_in_a_process_of_their_own(tmp_path: Path) -> None:
    methods = ["source-only", {"name": "apps-uniform", **SHORT, "estimate": "confidence"}]
    suite = write_several(tmp_path, methods, window_s=0.7)
    scores = []
    for isolated in (False, True):
        store = tmp_path / f"store-{isolated}"
        found = run_suite(suite, store=store, executor="inline", isolate_labels=isolated)
        assert [record.status for record in found.records] == ["ok", "ok"]
        scores.append({r.cell.method.name: r.results.score for r in found.records if r.results})
    assert scores[0] == scores[1]
