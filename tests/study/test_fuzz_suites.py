"""Spoiled suite files: an error in one line or a plan, never a traceback or a hang."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from yaml_mutations import BOMB, check_line, exit_code, spoiled

from bench.errors import BenchError
from bench.study.selection import Selection

QUIET = settings(suppress_health_check=list(HealthCheck), max_examples=40)
MANY = settings(QUIET, max_examples=1000)
SUITE: dict[str, Any] = {
    "name": "mine",
    "description": "a suite with every key",
    "stream": {"name": "digits-shift", "shifts": ["noise"], "severities": [1]},
    "model": {"name": "digits-vit"},
    "protocol": {"name": "periodic", "window_s": 60.0, "batch_size": 50, "samples": 50},
    "methods": ["source-only", {"name": "tent", "learning_rate": 0.001}],
    "supervised_references": ["source-fine-tune"],
    "variants": ["full", "compressed:8", {"name": "compressed", "ratio": 4}],
    "seeds": [0, 1],
    "devices": ["xavier-nx", "raspberry-pi-5"],
}


def check(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        started = time.process_time()
        try:
            plan, _ = Selection(suite=str(path), store=Path(folder) / "store").plan(warn=str)
            assert plan.cells
        except BenchError as error:
            check_line(str(error))
        assert time.process_time() - started < 30


@QUIET
@given(spoiled(SUITE))
def test_spoiled_suites(text: str) -> None:
    check(text)


@pytest.mark.slow
@MANY
@given(spoiled(SUITE))
def test_many_spoiled_suites(text: str) -> None:
    check(text)


def test_an_untouched_suite_is_planned() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_text(yaml.safe_dump(SUITE))
        plan, _ = Selection(suite=str(path), store=Path(folder) / "store").plan()
        assert len(plan.cells) == 2 * 2 * (2 * 3 + 1)


@pytest.mark.parametrize("text", [BOMB, "[" * 10_000, "name: mine\nseeds: !!int x"])
def test_a_spoiled_suite_ends_with_exit_code_2(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert exit_code(["plan", "--suite", str(tmp_path / "mine.yaml")]) == 2
