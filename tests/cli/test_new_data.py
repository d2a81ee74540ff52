"""``bench new-data``: what it writes passes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError


def new_data(*arguments: object) -> object:
    return CliRunner().invoke(app, ["new-data", *map(str, arguments)])


def test_what_it_writes_passes_its_tests_as_it_is(tmp_path: Path) -> None:
    done = new_data("our-clinic", "--dir", tmp_path)
    file, test = tmp_path / "our_clinic.py", tmp_path / "test_our_clinic.py"
    assert done.stdout.splitlines() == [
        f"wrote {file}",
        f"wrote {test}",
        "next:",
        f"  pytest {test}",
        f"  bench check --data {file} --root DIR",
        f"  bench data show our-clinic --root DIR --plugin {file}",
        f"  bench run --suite smoke --data our-clinic --root DIR --plugin {file}",
    ]
    assert '@register("dataset", "our-clinic")' in file.read_text()
    assert "OurClinic" in file.read_text()
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout


@pytest.mark.parametrize(
    ("name", "said"), [("Clinic", "small letters"), ("idx", "a dataset of this name")]
)
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str, said: str) -> None:
    done = new_data(name, "--dir", tmp_path)
    assert isinstance(done.exception, BenchError)
    assert said in str(done.exception)
    assert not list(tmp_path.iterdir())
