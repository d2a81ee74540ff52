"""The embedded default leaves room: what DESIGN and README promise, on the shipped suite."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.records.store import Store


@pytest.mark.slow
def test_high_on_the_source_low_without_adaptation_and_a_clear_upper_bound(tmp_path):
    """One seed of the default suite: source-only against supervised fine-tuning."""
    command = [
        sys.executable, "-P", "-m", "bench", "run", "--suite", "domain-shift", "--seeds", "0",
        "--methods", "source-only,fine-tune,feature-alignment,shot",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, check=False)
    assert done.returncode == 0
    results = {r.cell.method.name: r.results for r in Store(tmp_path / "bench-results")}
    source_only, fine_tune = results["source-only"], results["fine-tune"]
    assert source_only.source_before >= 0.95
    assert source_only.mean("after") <= source_only.source_before - 0.15
    assert fine_tune.mean("after") >= source_only.mean("after") + 0.10
    for name in ("shot", "feature-alignment"):
        assert source_only.mean("after") < results[name].mean("after") < fine_tune.mean("after")
