"""Merging stores: an ok record wins, equal records are skipped, conflicts are reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.records.merge import merge
from bench.records.record import Record, Results
from bench.records.store import Store


def made(make_record: Callable[..., Record], seed: int, **update: object) -> Record:
    record = make_record()
    cell = record.cell.model_copy(update={"seed": seed})
    return record.model_copy(update={"cell": cell, "identity": cell.identity, **update})


def test_records_are_copied_with_their_logs_and_ok_wins(
    tmp_path: Path, make_record: Callable[..., Record], good_results: Callable[..., Results]
) -> None:
    ours, theirs = Store(tmp_path / "ours"), Store(tmp_path / "theirs")
    ok = {"status": "ok", "reason": "", "results": good_results(0.5)}
    bad = {"status": "failed", "reason": "broke", "results": None}
    pairs = [(None, ok), (bad, ok), (ok, bad), (ok, ok), (ok, {**ok, "wall_s": 99.0})]
    for seed, (mine, other) in enumerate(pairs):
        if mine is not None:
            ours.write(made(make_record, seed, **mine))
        theirs.write(made(make_record, seed, **other))
    first = made(make_record, 0, **ok)
    theirs.logs.mkdir()
    theirs.log_path(first.run).write_text("said")
    before = {path.name: path.read_bytes() for path in theirs.records.iterdir()}
    done = merge(ours, [theirs])
    assert done.counts == {"copied": 1, "replaced": 1, "kept": 1, "equal": 1}
    (line,) = done.conflicts
    assert "seed 4" in line
    assert "the second stays" in line
    assert sorted(r.cell.seed for r in ours) == [0, 1, 2, 3, 4]
    assert {(r.status, r.wall_s == 99.0) for r in ours} == {("ok", False)}
    assert ours.log_path(first.run).read_text() == "said"
    assert {path.name: path.read_bytes() for path in theirs.records.iterdir()} == before
    again = merge(ours, [theirs])
    assert again.counts == {"equal": 3, "kept": 1}
    assert len(again.conflicts) == 1


def test_a_store_is_not_merged_into_itself(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    Store(tmp_path).write(make_record())
    with pytest.raises(BenchError, match="is the one to merge into"):
        merge(Store(tmp_path), [Store(tmp_path / ".")])
