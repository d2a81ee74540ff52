"""What ``bench store prune`` shows and removes, and above all what it leaves."""

from __future__ import annotations

import os
import time

import pytest

from bench.records.cell import Component
from bench.records.prune import needless, remove
from bench.records.store import Store

DAY_S = 24 * 3600


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.logs.mkdir(parents=True)
    return store


@pytest.fixture
def put(store, make_record, make_cell):
    """Adds a record with a log; ``code``: of its method, ``day``: on which it was started."""

    def made(code, day, status="failed", seed=0, **more):
        method = Component(name="tent", config={"code": code[:0]}, code=code)
        cell = make_cell(method=method, seed=seed, **more)
        record = make_record(
            cell=cell, status=status, started=f"2026-01-0{day}T00:00:00+00:00",
            run=f"{code}-{day}", log=f"logs/{code}-{day}.log",
        )  # fmt: skip
        (store.logs / f"{code}-{day}.log").write_text("a log")
        return store.path(record.identity), store.write(record)

    return made


def paths(found):
    return [each.path.name for each in found]


def test_records_of_older_code_go_with_their_logs_where_the_newer_is_no_loss(store, put):
    old, _ = put("c0de1", 1)
    new, _ = put("c0de2", 2)
    other_seed, _ = put("c0de1", 3, seed=1)
    found = needless(store)
    assert sorted(paths(found)) == sorted([old.name, "c0de1-1.log"])
    assert {each.why for each in found} == {
        "older code: tent · digits-vit · xavier-nx · seed 0 ran again with newer code",
        "log of a record of older code",
    }
    assert old.exists()
    assert remove(store, found) == found
    assert not old.exists()
    assert not (store.logs / "c0de1-1.log").exists()
    assert new.exists()
    assert other_seed.exists()
    assert needless(store) == []


def test_a_result_of_older_code_stays_where_the_newer_run_failed(store, make_record, make_cell):
    def write(code, day, **more):
        cell = make_cell(model=Component(name="m", code=code), core=6)
        started = f"2026-01-0{day}T00:00:00+00:00"
        return store.write(make_record(cell=cell, started=started, **more))

    result = write("first", 1, status="unsupported")
    failed = write("second", 2, status="failed")
    assert needless(store) == []
    write("third", 3, status="interrupted")
    assert paths(needless(store)) == [failed.name]
    write("fourth", 4, status="unsupported")
    assert result.name in paths(needless(store))
    assert len(needless(store)) == 3


def test_an_ok_record_goes_for_an_ok_one_alone(store, make_record, make_cell, tmp_path):
    from bench.records.record import Results

    results = Results.model_validate(RESULTS)

    def write(code, day, status):
        cell = make_cell(stream=Component(name="s", code=code))
        ok = {"results": results, "reason": ""} if status == "ok" else {}
        started = f"2026-01-0{day}T00:00:00+00:00"
        return store.write(make_record(cell=cell, started=started, status=status, **ok))

    first = write("a", 1, "ok")
    write("b", 2, "failed")
    assert needless(store) == []  # the failure is the newest
    write("c", 3, "ok")
    assert first.name in paths(needless(store))
    assert len(needless(store)) == 2


def test_logs_that_no_record_names_go_after_a_day(store, put):
    put("c0de", 1)
    for name, age in (("earlier", 2 * DAY_S), ("running", 60)):
        (store.logs / f"{name}.log").write_text("x")
        os.utime(store.logs / f"{name}.log", (time.time() - age,) * 2)
    (store.logs / "notes.txt").write_text("mine")
    assert paths(needless(store)) == ["earlier.log"]


def test_where_files_cannot_be_read_no_log_is_needless(store, put):
    put("c0de", 1)
    (store.logs / "earlier.log").write_text("x")
    os.utime(store.logs / "earlier.log", (0, 0))
    (store.records / "torn.json").write_text("{")
    assert needless(store) == []
    (store.records / "torn.json").unlink()
    assert paths(needless(store)) == ["earlier.log"]


def test_a_file_that_was_replaced_by_a_record_is_needless(store, put):
    path, _ = put("c0de", 1)
    path.write_text("{")
    put("c0de", 1)  # keeps what it cannot read under another name
    (name,) = (p.name for p in store.records.iterdir() if "unreadable" in p.name)
    (store.records / ("0" * 20 + ".json.unreadable")).write_text("{")  # of a cell without record
    assert paths(needless(store)) == [name]


def test_logs_outside_the_store_and_files_that_changed_since_stay(store, put, make_record,
                                                                  make_cell, tmp_path):  # fmt: skip
    (tmp_path / "secret.log").write_text("secret")
    for day, log in ((1, "../secret.log"), (2, "logs/new.log")):
        cell = make_cell(method=Component(name="tent", code=f"c0de{day}"))
        started = f"2026-01-0{day}T00:00:00+00:00"
        store.write(make_record(cell=cell, started=started, log=log))
    (found,) = needless(store)
    assert found.path.suffix == ".json"
    found.path.write_text("written again")
    assert remove(store, [found]) == []
    assert found.path.exists()
    assert (tmp_path / "secret.log").exists()


def test_the_command_shows_and_removes_with_yes_alone(store, put, tmp_path, monkeypatch, capfd):
    from bench.cli import app

    monkeypatch.chdir(tmp_path)
    old, _ = put("c0de1", 1)
    put("c0de2", 2)
    app(["store", "prune", "--store", "store"], standalone_mode=False)
    said = capfd.readouterr().out.splitlines()
    assert len(said) == 3
    assert said[-1] == "2 files, 0.0 MB; --yes removes them"
    assert old.exists()
    app(["store", "prune", "--store", "store", "--yes"], standalone_mode=False)
    assert capfd.readouterr().out.splitlines()[-1] == "2 files, 0.0 MB; 2 removed"
    assert not old.exists()
    app(["store", "prune", "--store", "store"], standalone_mode=False)
    assert capfd.readouterr().out == "0 files, 0.0 MB\n"


RESULTS = {
    "source_before": 0.9,
    "source_after": 0.9,
    "domains": [
        {"name": "d", "before": 0.5, "after": 0.6, "final": 0.6, "adaptation_samples": 1,
         "test_samples": 1, "window_closed": False, "steps": 1, "time_s": 1.0, "energy_j": None},
    ],
    "costs": {
        **{
            name: {"value": 1.0, "unit": "s", "kind": "modelled", "how": "by hand"}
            for name in ("adaptation_time", "adaptation_energy", "peak_memory", "runtime_memory",
                         "source_storage", "inference_time", "inference_energy")
        },
        "steps": {}, "flops": None, "bytes": None, "launches": None, "tracing_s": 0.0,
    },
}  # fmt: skip
