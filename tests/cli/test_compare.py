"""``bench compare``: exit codes, and stores that cannot be compared."""

from __future__ import annotations

import json
import sys

import pytest

from bench.records.store import Store


@pytest.fixture
def bench(monkeypatch, capfd, tmp_path):
    """Runs a command; its exit code, what it printed and what it said on standard error."""
    from bench.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bench", *arguments])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capfd.readouterr()

    return run


def fill(folder, records):
    store = Store(folder)
    for record in records:
        store.write(record)
    return store


def test_exit_codes_and_formats(bench, tmp_path, make_record, make_cell):
    ran = [make_record(cell=make_cell(seed=s), status="unsupported") for s in range(2)]
    fill(tmp_path / "a", ran)
    fill(tmp_path / "b", [ran[0], make_record(cell=make_cell(seed=1), reason="<b>broken</b>")])
    code, out, err = bench("compare", "a", "a")
    assert (code, err) == (0, "")
    assert out.startswith("B = a against A = a\n")
    assert out.endswith("No change beyond noise: 0 better, 0 worse, 0 runs ended otherwise.\n")
    code, out, _ = bench("compare", "a", "b")
    assert code == 1
    assert "<b>broken</b>" in out
    code, out, _ = bench("compare", "a", "b", "--format", "markdown")
    assert code == 1
    assert "&lt;b&gt;broken&lt;/b&gt;" in out
    code, out, _ = bench("compare", "a", "b", "--format", "json")
    assert (code, json.loads(out)["methods"][0]["statuses"][0]["b"]) == (1, "failed")


def test_what_cannot_be_compared_is_exit_code_2(bench, tmp_path, make_record, make_cell):
    fill(tmp_path / "a", [make_record()])
    fill(tmp_path / "other", [make_record(cell=make_cell(device="another"))])
    (tmp_path / "empty" / "records").mkdir(parents=True)
    cases = {
        ("a", "missing"): "--store missing: no records there",
        ("missing", "a"): "--store missing: no records there",
        ("a", "empty"): "a and empty: no run of one method",
        ("a", "other"): "a and other: no run of one method",
        ("a", "a", "--format", "xml"): "Invalid value for '--format'",
        ("a",): "Missing argument",
    }
    for arguments, part in cases.items():
        code, out, err = bench("compare", *arguments)
        assert (code, out) == (2, ""), arguments
        assert part in err


def test_files_that_are_no_records_are_named_and_the_others_compared(bench, tmp_path, make_record):
    store = fill(tmp_path / "a", [make_record()])
    fill(tmp_path / "b", [make_record()])
    (store.records / "torn.json").write_text('{"schema_version": 2')
    code, out, err = bench("compare", "a", "b")
    assert code == 0
    assert "No change" in out
    assert "torn.json cannot be read and is ignored" in err
