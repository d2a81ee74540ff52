"""The script that shows that a change changed no result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.records.record import Record

SCRIPT = Path(__file__).with_name("compare_stores.py")
OLD = Path(__file__).parents[1] / "records" / "samples" / "schema-1.json"


def run(*stores: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, stores)]
    return subprocess.run(command, capture_output=True, text=True)


def store(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "records").mkdir(parents=True)
    (folder / "records" / "a.json").write_text(json.dumps(content))
    return folder


def test_equal_results_are_equal_whatever_version_wrote_them(tmp_path: Path) -> None:
    content = json.loads(OLD.read_text())
    old = store(tmp_path / "old", content)
    content["cell"]["stream"] = content["cell"].pop("scenario")
    content["cell"]["core"] = 99
    done = run(old, store(tmp_path / "new", content))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 and 1 cells" in done.stdout
    assert "0 cells differ" in done.stdout


def test_one_bit_of_an_accuracy_is_named(tmp_path: Path) -> None:
    content = json.loads(OLD.read_text())
    before = store(tmp_path / "before", content)
    content["results"]["domains"][1]["after"] += 2**-50
    content["results"]["costs"]["tracing_s"] = 99.0
    done = run(before, store(tmp_path / "after", content))
    assert done.returncode == 1
    assert done.stdout.count("\n") == 2
    assert "domains[1].after" in done.stdout


def test_a_missing_cell_and_an_empty_store_are_not_equal(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    for name, methods in (("before", ("tent", "shot")), ("after", ("tent",))):
        for i, method in enumerate(methods):
            record = json.loads(make_record().model_dump_json())
            record["cell"]["method"]["name"] = method
            folder = tmp_path / name / "records"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.json").write_text(json.dumps(record))
    done = run(tmp_path / "before", tmp_path / "after")
    assert done.returncode == 1
    assert "shot" in done.stdout
    assert run(tmp_path / "before", tmp_path / "nothing").returncode == 2
