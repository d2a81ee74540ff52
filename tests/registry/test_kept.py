"""What is read of source files once is kept, and never taken for that of other contents."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bench.registry import component_code, kept
from bench.registry.discovery import PACKAGES, discover, scan_package
from bench.registry.kept import KeptTable, contents_key


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path / "sources"


def test_what_is_kept_is_what_was_made_and_a_damaged_file_counts_as_none(cache: Path) -> None:
    made = {"a": (1, [2.5, None]), "b": {"c"}}
    assert kept.kept("things", "k", lambda: made) == made
    assert kept.kept("things", "k", dict) == made
    (file,) = cache.iterdir()
    file.write_text("__import__('os').abort()")
    assert kept.kept("things", "k", lambda: 3) == 3
    assert ast.literal_eval(file.read_text()) == 3


def test_what_is_no_literal_is_made_again(cache: Path) -> None:
    calls = []

    def make() -> object:
        calls.append(1)
        return [float("nan")]

    kept.kept("things", "k", make)
    kept.kept("things", "k", make)
    assert len(calls) == 2
    assert not cache.exists()


def test_each_change_of_a_file_or_its_place_is_another_key(tmp_path: Path) -> None:
    def key() -> str:
        return contents_key([tmp_path])

    (tmp_path / "a.py").write_text("x = 1")
    keys = [key()]
    (tmp_path / "a.py").write_text("x = 2")
    keys.append(key())
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    keys.append(key())
    (tmp_path / "c.py").write_text("")
    keys.append(key())
    assert len(set(keys)) == 4
    (tmp_path / "notes.txt").write_text("none of it")
    assert key() == keys[-1]


def test_a_table_is_by_content_and_old_files_are_removed(cache: Path) -> None:
    for number in range(kept.MOST + 2):
        table = KeptTable("things", f"{number}")
        assert table.get(b"content", lambda number=number: number) == number
        table.save()
    assert len(list(cache.iterdir())) == kept.MOST
    again = KeptTable("things", f"{kept.MOST + 1}")
    assert again.get(b"content", lambda: None) == kept.MOST + 1
    assert again.get(b"other", lambda: "new") == "new"


def test_components_that_were_kept_are_those_that_are_parsed() -> None:
    parsed = [entry for package in PACKAGES for entry in scan_package(package)]
    assert len(parsed) > 100
    for _ in range(2):
        assert list(discover({})) == parsed


def test_the_code_of_a_kept_file_is_that_of_a_parsed_one(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "tent.py"
    file.write_text(
        "import beside\nfrom math import tau\n\n\ndef f():\n    return load('method', 'tent')\n"
    )
    found = []
    for _ in range(2):
        component_code._parse.cache_clear()
        component_code._computations.cache_clear()
        found.append((component_code.code_digest(file), component_code._parse(file)))
    assert found[0] == found[1]
    assert len(list(cache.iterdir())) == 1
    component_code._parse.cache_clear()
    component_code._computations.cache_clear()
