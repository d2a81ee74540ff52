"""Every task on a GPU: runs over tiny data, with tensors that stand for one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import FakeGpu, FakeNvml
from tagged_gpu import tagged_gpu
from tiny_workloads import write_suite

from bench import run_suite

SHORT = {"lora_steps": 2, "kb_steps": 4, "index_steps": 4}
METHODS = (
    "source-only", "tent", "eata", "sar", "cotta", "rotta", "shot", "deyo", "dann",
    "feature-alignment", {"name": "edgeta", **SHORT},
)  # fmt: skip
REFERENCES = ("fine-tune", "lwf", "der++", "gem")
"""One of each way to use a task."""


FEW = {
    "methods": ("tent", {"name": "edgeta", **SHORT}),
    "references": ("fine-tune", "der++"),
}
ALL = {"methods": METHODS, "references": REFERENCES}


@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param("vit-segmenter", FEW, id="vit-segmenter-few"),
        *(
            pytest.param(name, ALL, marks=pytest.mark.slow, id=name)
            for name in ("vit-segmenter", "vit-detector", "bert-tags", "vilt", "gpt-neo")
        ),
    ],
)
def test_runs_of_a_task_mix_no_devices(
    name: str, what: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(FakeGpu("GPU-aaaa-1")))  # type: ignore[arg-type]
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    for variable in ("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(variable, "")  # put back after the test
        monkeypatch.delenv(variable)
    suite = write_suite(name, tmp_path, what["methods"], what["references"], 8)
    with tagged_gpu():
        found = run_suite(suite, store=tmp_path / "s", executor="inline", accelerator="cuda")
    said = {record.cell.method.name: (record.status, record.reason) for record in found.records}
    assert {status for status, _ in said.values()} <= {"ok", "unsupported"}, said
    assert said["fine-tune"][0] == "ok"
    without_labels = "unsupported" if name == "gpt-neo" else "ok"  # its inputs hold the labels
    assert said["edgeta"][0] == without_labels
