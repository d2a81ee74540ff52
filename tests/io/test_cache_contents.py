"""``bench cache``: what lies there, and that the least recently used goes first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from bench.cli import app
from bench.io.cache_contents import entries, prune


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three files and a folder of 1000 bytes each, used one after another; and what is no entry."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    names = ("edgeta/index-1.pt", "source-models/a.pt", "unpacked/x/photos/1.png", "edgeta/fm-1.pt")
    for i, name in enumerate(names):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(1000))
        os.utime(file, (1000 + i, 1000 + i))
    (tmp_path / "edgeta/index-1.pt.lock").touch()
    (tmp_path / "edgeta/.index-2.pt.tmp").write_bytes(bytes(50))
    return tmp_path


def names(found: list) -> list[str]:
    return [f"{entry.kind}/{entry.path.name}" for entry in found]


def test_entries_are_files_and_unpacked_folders(cache: Path) -> None:
    found = entries()
    assert names(found) == [
        "edgeta/fm-1.pt",
        "edgeta/index-1.pt",
        "source-models/a.pt",
        "unpacked/x",
    ]
    assert [entry.bytes for entry in found] == [1000] * 4
    assert [entry.used for entry in found] == [1003, 1000, 1001, 1002]


def test_what_was_used_least_recently_goes_until_the_rest_fits(cache: Path) -> None:
    assert names(prune(2500)) == ["edgeta/index-1.pt", "source-models/a.pt"]
    assert names(entries()) == ["edgeta/fm-1.pt", "unpacked/x"]
    assert prune(2500) == []
    assert names(prune(0)) == ["unpacked/x", "edgeta/fm-1.pt"]
    assert not (cache / "unpacked/x").exists()


def test_what_is_locked_stays(cache: Path) -> None:
    with FileLock(cache / "edgeta/index-1.pt.lock"):
        assert names(prune(3000)) == ["source-models/a.pt"]
    assert "edgeta/index-1.pt" in names(entries())


def test_the_commands_say_what_they_find_and_do(cache: Path) -> None:
    done = CliRunner().invoke(app, ["cache", "list"])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].split()[:3] == ["edgeta", "2", "0.0"]
    assert str(cache) in done.stdout
    done = CliRunner().invoke(app, ["cache", "prune", "--to", "0.000001", "--dry-run"])
    assert "3 entries, 0.0 MB would go; 0.0 MB stay" in done.stdout
    assert len(entries()) == 4
    done = CliRunner().invoke(app, ["cache", "prune", "--to", "0"])
    assert "4 entries, 0.0 MB removed; 0.0 MB stay" in done.stdout
    assert entries() == []


def test_an_empty_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "nothing"))
    assert "0.0 MB in" in CliRunner().invoke(app, ["cache", "list"]).stdout
    assert prune(0) == []
