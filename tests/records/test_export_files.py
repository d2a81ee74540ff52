"""Records as one file for others: tables that pandas reads again, and archives that are stores."""

from __future__ import annotations

import sys
import tarfile
import zipfile

import pandas as pd
import pytest

from bench import BenchError
from bench.records.export import to_frame
from bench.records.export_files import export
from bench.records.store import Store

NASTY = "=HYPERLINK(\"http://evil\"), <b>a</b>\n'quoted'"


@pytest.fixture
def store(tmp_path, make_record, make_cell):
    """Two failed records, whose runs shared a log, and one whose log is a link to elsewhere."""
    store = Store(tmp_path / "store")
    store.logs.mkdir(parents=True)
    (store.logs / "shared.log").write_text("what happened\n")
    (tmp_path / "secret").write_text("secret")
    (store.logs / "link.log").symlink_to(tmp_path / "secret")
    for seed, log in enumerate(["logs/shared.log", "logs/shared.log", "logs/link.log"]):
        store.write(make_record(cell=make_cell(seed=seed), reason=NASTY, log=log))
    return store


def test_a_table_is_that_of_the_python_api(store, tmp_path):
    frame = to_frame(store)
    assert export(store, "parquet", tmp_path / "out" / "r.parquet") == 3
    again = pd.read_parquet(tmp_path / "out" / "r.parquet")
    columns = ["identity", "seed", "reason", "wall_s"]
    pd.testing.assert_frame_equal(again[columns], frame[columns], check_dtype=False)
    assert list(again.columns) == list(frame.columns)
    export(store, "csv", tmp_path / "r.csv")
    table = pd.read_csv(tmp_path / "r.csv")
    assert list(table.columns) == list(frame.columns)
    assert list(table.identity) == list(frame.identity)
    assert set(table.reason) == {f"'{frame.reason[0]}"}  # no formula in a spreadsheet


def test_an_archive_is_a_store_again_and_equal_ones_are_equal(store, tmp_path):
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    assert export(store, "zip", first) == export(store, "zip", second) == 3
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "again")
    assert [n for n in names if n.startswith("logs/")] == ["logs/shared.log"]
    again = Store(tmp_path / "again")
    assert list(again) == list(store)
    assert again.log_path("shared").read_text() == "what happened\n"
    assert sorted(tmp_path.glob(".*")) == []


def test_records_alone_are_small_and_equal_ones_are_equal(store, tmp_path, make_record, make_cell):
    for seed in range(3, 40):
        store.write(make_record(cell=make_cell(seed=seed), reason=NASTY))
    first, second = tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"
    assert export(store, "tar.xz", first) == 40
    copy = Store(tmp_path / "copy")
    for record in reversed(list(store)):
        copy.write(record)
    assert export(copy, "tar.xz", second) == 40
    assert first.read_bytes() == second.read_bytes()
    export(store, "zip", tmp_path / "a.zip")
    assert 4 * first.stat().st_size < (tmp_path / "a.zip").stat().st_size
    with tarfile.open(first) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "again", filter="data")
    assert names == sorted(f"records/{record.identity}.json" for record in store)
    assert list(Store(tmp_path / "again")) == list(store)


def test_what_cannot_be_exported_is_said(store, tmp_path, monkeypatch):
    (tmp_path / "empty" / "records").mkdir(parents=True)
    with pytest.raises(BenchError, match="holds no record to export"):
        export(Store(tmp_path / "empty"), "csv", tmp_path / "x.csv")
    for form in ("csv", "parquet", "zip", "tar.xz"):
        with pytest.raises(BenchError, match=r"cannot be written: .*; name another file"):
            export(store, form, tmp_path / "secret" / "x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BenchError, match=r"needs pyarrow; pip install .*\[parquet\]"):
        export(store, "parquet", tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_the_command(store, tmp_path, monkeypatch, capfd):
    from bench.cli import app

    (store.records / "torn.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    arguments = ["store", "export", "r.csv", "--store", "store"]
    app(arguments, standalone_mode=False)
    said = capfd.readouterr()
    assert said.out == "3 records in r.csv\n"
    assert "torn.json cannot be read and is ignored" in said.err
    assert len(pd.read_csv("r.csv")) == 3


def test_the_format_of_others_asks_who_made_the_runs(store, tmp_path, monkeypatch, capfd):
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["store", "export", "out", "--store", "store", "--format", "every-eval-ever"]
    for more, part in (([], "--organization"), (["--organization", "A"], "no record has results")):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        assert part in capfd.readouterr().err
    assert not (tmp_path / "out").exists()
