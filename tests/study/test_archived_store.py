"""A store in an archive is read as its folder, and nothing that an archive says leads elsewhere."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench import BenchError
from bench.records.export_files import export
from bench.records.merge import merge
from bench.records.store import Store
from bench.study import selection
from bench.study.selection import existing_store, open_store


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store(tmp_path, make_record, make_cell):
    store = Store(tmp_path / "store")
    for seed in range(3):
        store.write(make_record(cell=make_cell(seed=seed)))
    return store


@pytest.mark.parametrize("form", ["zip", "tar.xz"])
def test_an_archive_is_read_as_a_store_and_stays_as_it_is(store, tmp_path, form):
    archive = tmp_path / f"results.{form}"
    export(store, form, archive)
    before = archive.read_bytes()
    opened = existing_store(archive)
    assert list(opened) == list(store)
    assert len(list(opened.summaries())) == 3
    ours = Store(tmp_path / "ours")
    assert merge(ours, [opened]).counts == {"copied": 3}
    assert list(ours) == list(store)
    assert archive.read_bytes() == before
    with pytest.raises(BenchError, match="is an archive, which is only read; unpack it first"):
        existing_store(archive, to_change=True)
    with pytest.raises(BenchError, match="is a file; name a folder"):
        open_store(archive)


def test_an_archive_of_the_folder_itself_is_read_too(store, tmp_path):
    with zipfile.ZipFile(tmp_path / "made.zip", "w") as made:
        for path in store.records.iterdir():
            made.write(path, f"store/records/{path.name}")
    assert list(existing_store(tmp_path / "made.zip")) == list(store)


def test_what_is_no_such_archive_is_one_line(store, tmp_path, monkeypatch):
    def message(name: str) -> str:
        with pytest.raises(BenchError) as told:
            existing_store(tmp_path / name)
        assert "\n" not in str(told.value)
        return str(told.value)

    export(store, "tar.xz", tmp_path / "cut.tar.xz")
    whole = (tmp_path / "cut.tar.xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    assert message("cut.tar.xz").startswith(f"--store {tmp_path}/cut.tar.xz: cannot be unpacked (")
    (tmp_path / "none.zip").write_bytes(b"no archive")
    assert "cannot be unpacked" in message("none.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as made:
        made.writestr("photos/cat.txt", "cat")
    assert "no records there" in message("other.zip")
    with tarfile.open(tmp_path / "out.tar.xz", "w:xz") as packed:
        member = tarfile.TarInfo("../outside.json")
        member.size = 1
        packed.addfile(member, io.BytesIO(b"x"))
    assert "outside the destination" in message("out.tar.xz")
    assert list(tmp_path.rglob("outside.json")) == []
    monkeypatch.setattr(selection, "MOST_BYTES", 1000)
    for form in ("zip", "tar.xz"):
        export(store, form, tmp_path / f"big.{form}")
        assert "its content has more than 0 GB" in message(f"big.{form}")


def test_the_command_reads_one_and_changes_none(store, tmp_path, monkeypatch, capfd):
    from bench.cli import main

    export(store, "tar.xz", tmp_path / "r.tar.xz")
    monkeypatch.chdir(tmp_path)
    for words, code, told in (
        (["check"], 0, "3 records in "),
        (["prune", "--yes"], 2, "is an archive, which is only read; unpack it first"),
    ):
        monkeypatch.setattr(sys, "argv", ["bench", "store", *words, "--store", "r.tar.xz"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        said = capfd.readouterr()
        assert told in said.out + said.err
