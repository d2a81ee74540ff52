"""What a record says of the code that made it."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.records import environment as module


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_code_in_a_checkout_has_its_commit_and_installed_code_none(tmp_path: Path) -> None:
    file = tmp_path / "bench" / "records" / "environment.py"
    file.parent.mkdir(parents=True)
    shutil.copy(str(module.__file__), file)
    assert runpy.run_path(str(file))["environment"]()["commit"] == ""
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-q", "-m", "first")):
        subprocess.run(("git", "-C", str(tmp_path), *command), check=True)
    found = runpy.run_path(str(file))["environment"]()["commit"]
    assert re.fullmatch("[0-9a-f]{12}", found)
