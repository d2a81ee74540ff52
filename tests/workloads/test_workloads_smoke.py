"""Every workload of EdgeTA's paper once, end to end: tiny data, tiny random foundation models."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_workloads import workloads, write_suite

from bench import registry, run_suite

SHORT = {"lora_steps": 2, "kb_steps": 4, "index_steps": 4}
METHODS = ("tent", "shot", "feature-alignment")
REFERENCES = ("fine-tune", "ewc", "gem", "lora")


def suite_of(name: str, folder: Path) -> Path:
    edgeta = {"name": "edgeta", **SHORT, **({"attention": True} if name.startswith("sam") else {})}
    return write_suite(name, folder, ["source-only", *METHODS, edgeta], REFERENCES, 16)


ALWAYS = ("vit-detector", "bert", "vilt", "gpt-neo")
"""Of boxes, texts, images with texts, and generation; the others are slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.slow])
        for name in workloads()
    ],
)
def test_every_method_adapts_every_foundation_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    found = run_suite(suite_of(name, tmp_path), store=tmp_path / "store", executor="inline")
    status = {record.cell.method.name: (record.status, record.reason) for record in found.records}
    task = registry.load("model", workloads()[name].model["name"]).task
    does = {m for m in status if task in registry.load("method", m).tasks}
    assert {m for m, (said, _) in status.items() if said == "ok"} == does, status
    assert {said for m, (said, _) in status.items() if m not in does} <= {"unsupported"}
    assert does >= {"source-only", *REFERENCES}
    adapted = [r for r in found.records if r.status == "ok"]
    assert all(math.isfinite(r.results.score) for r in adapted if r.results is not None)
    working = {r.cell.method.name for r in adapted if r.results and r.results.costs.steps}
    assert working == does - {"source-only"}
