"""What is installed: every room, every data file, and nothing that collides with others."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"bench": "bench", "datasets": "bench/datasets", "methods": "bench/methods",
         "models": "bench/models", "reports": "bench/reports"}  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    copy = tmp_path_factory.mktemp("source")
    for name in (*ROOMS, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    code = "from setuptools.build_meta import build_wheel; print(build_wheel('out'))"
    (copy / "out").mkdir()
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = (copy / "out").glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_module_and_data_file(wheel):
    expected = set()
    for folder, installed in ROOMS.items():
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in (".py", ".yaml", ".html", ".css", ".js", ".typed"):
                expected.add(f"{installed}/{file.relative_to(ROOT / folder).as_posix()}")
    inside = {n for n in wheel.namelist() if ".dist-info/" not in n}
    assert inside == expected


def test_the_wheel_installs_one_top_level_package(wheel):
    assert {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" not in n} == {"bench"}


def test_every_folder_of_a_room_is_a_package():
    for folder in ROOMS:
        for file in (ROOT / folder).rglob("*.py"):
            assert (file.parent / "__init__.py").is_file(), f"{file.parent} lacks __init__.py"
