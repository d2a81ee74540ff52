"""What ``bench watch`` says while records come, and when it ends."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from warm_bench import program

from bench.execute.announced import Announcement, remove_ended
from bench.execute.claims import Claims, folder
from bench.live import state as live_state
from bench.live.state import StoreView, look
from bench.live.watch import Watch
from bench.records.store import Store
from bench.study.selection import Selection


class Terminal(io.StringIO):
    def isatty(self):
        return True


def wait_for(found, limit_s=60):
    deadline = time.monotonic() + limit_s
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def watched(store, act, out):
    """Watch to the end while ``act`` goes on beside it; whether all ended in a result."""
    view = StoreView(store.root)
    beside = threading.Thread(target=act)
    beside.start()
    try:
        return Watch(view, out=out).run(every_s=0.05)
    finally:
        beside.join()
        view.close()


def test_a_log_has_a_line_for_each_event_and_ends_when_nothing_runs(reports, fill):
    make = reports.make_record
    store = fill(make("tent", 0))
    cells = [make("tent", 1).cell, make("shot", 1).cell]
    out = io.StringIO()
    mine = Claims(store)
    assert mine.take(cells) == cells

    def act():
        wait_for(lambda: "running: tent" in out.getvalue())
        store.write(make("tent", 1))
        mine.release(cells[:1])
        wait_for(lambda: "tent · small-vit · board · seed 1: ok in 3 s" in out.getvalue())
        store.write(make("shot", 1, status="failed", reason=reports.NASTY))
        mine.close()

    before = sorted(p for p in store.root.rglob("*") if p.suffix == ".jsonl")
    assert watched(store, act, out) is False
    lines = out.getvalue().splitlines()
    assert lines[0] == "1 record: 1 ok; 2 running"
    where = f"(process {os.getpid()} on "
    assert all(where in line for line in lines[1:3])
    assert [line.split(" · ")[0] for line in lines[1:3]] == ["running: shot", "running: tent"]
    assert "tent · small-vit · board · seed 1: ok in 3 s" in lines
    assert "2 records: 2 ok; 1 running" in lines
    (failed,) = (line for line in lines if line.startswith("shot") and "failed" in line)
    assert "failed: <script>" in failed
    assert failed.isprintable()
    assert lines[-1] == "nothing is left; 3 records: 1 failed, 2 ok"
    assert sorted(p for p in store.root.rglob("*") if p.suffix == ".jsonl") == before == []


def test_a_terminal_shows_what_runs_and_how_long_others_took(reports, fill):
    make = reports.make_record
    store = fill(*(make("tent", s, wall_s=wall) for s, wall in enumerate([60.0, 90.0, 300.0])))
    out = Terminal()
    mine = Claims(store)
    mine.take([make("tent", 7).cell])

    def act():
        wait_for(lambda: "seed 7 (for" in out.getvalue())
        store.write(make("tent", 7))
        mine.close()

    assert watched(store, act, out) is True
    said = out.getvalue()
    assert "running: tent · small-vit · board · seed 7 (for 0 s; others took 1 min 30 s)" in said
    assert "3 records: 3 ok; 1 running" in said
    assert "| 3/4" in said
    assert said.rstrip().endswith("nothing is left; 4 records: 4 ok")


def test_results_that_are_no_failures_are_all_well(reports, fill):
    make = reports.make_record
    result = {"status": "oom", "reason": "too large"}
    store = fill(make("a", 0, oom_on="device", **result), make("b", 0, status="unsupported"))
    out = io.StringIO()
    assert watched(store, lambda: None, out) is True
    assert "a · small-vit · board · seed 0: oom: too large" in out.getvalue()
    store.write(make("c", 0, oom_on="host", **result))
    assert watched(store, lambda: None, io.StringIO()) is False


def test_a_claim_that_nobody_touches_is_lost_though_its_process_cannot_be_seen(
    reports, fill, monkeypatch
):
    store = fill()
    cell = reports.make_record("tent", 0).cell
    with Claims(store) as mine:
        mine.take([cell])
        path = folder(store) / f"{cell.identity}.json"
        own = next(iter(look(store).claims)).claim
        elsewhere = own.model_copy(update={"machine": "another", "token": "another"})
        path.write_text(elsewhere.model_dump_json())
        monkeypatch.setattr(live_state, "EXPIRES_S", 0.5)
        out = io.StringIO()
        assert watched(store, lambda: None, out) is True
    assert "running: tent" in out.getvalue()
    assert "lost: tent · small-vit · board · seed 0" in out.getvalue()
    assert "the same command runs it again" in out.getvalue()


def start(*arguments, cwd, **more):
    return program(
        [sys.executable, "-P", "-m", "bench", *arguments], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip


def test_ctrl_c_ends_it_with_130_and_leaves_the_runs_alone(reports, fill, tmp_path):
    make = reports.make_record
    store = fill(make("tent", 0))
    with Claims(store) as mine:
        mine.take([make("tent", 1).cell])
        watching = start("watch", "--store", "store", cwd=tmp_path)
        assert watching.stdout.readline() == "1 record: 1 ok; 1 running\n"
        assert watching.stdout.readline().startswith("running: tent · small-vit · board · seed 1")
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
        assert watching.returncode == 130
        assert said.endswith("bench: stopped; 1 record: 1 ok; 1 running\n")
        assert len(list(folder(store).iterdir())) == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["watch", "--store", "nothing"], "--store nothing: no records there"),
        (["watch", "--store", "store", "--seeds", "1"], "name the suite too, with --suite"),
        (["watch", "--store", "store", "--suite", "smokee"], "did you mean 'smoke'"),
        (["serve", "--store", "nothing"], "--store nothing: no records there"),
        (["serve", "--store", "store", "--port", "99999"], "Invalid value for '--port'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(fill, tmp_path, monkeypatch, capfd, arguments, part):
    from bench.cli import main

    fill()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capfd.readouterr()
    assert said.err.count("\n") == 1
    assert part in said.err
    assert said.out == ""


def test_the_command_takes_the_store_alone_whatever_the_environment_says(
    reports, fill, tmp_path, monkeypatch, capfd
):
    from bench.cli import app

    monkeypatch.setenv("BENCH_DATA_ROOT", str(tmp_path))
    fill(reports.make_record("tent", 0))
    command = ["watch", "--store", str(tmp_path / "store")]
    assert app(command, standalone_mode=False) == 0
    assert capfd.readouterr().out.endswith("nothing is left; 1 record: 1 ok\n")


def test_an_empty_store_has_nothing_left(fill):
    out = io.StringIO()
    assert watched(fill(), lambda: None, out) is True
    assert out.getvalue() == "0 records\nnothing is left; 0 records\n"


def test_files_that_are_no_records_are_counted(reports, fill):
    store = fill(reports.make_record("tent", 0))
    (store.records / "torn.json").write_text("{")
    out = io.StringIO()
    watched(store, lambda: None, out)
    assert out.getvalue().splitlines()[0] == (f"1 record: 1 ok; 1 file in {store.records} ignored")


def test_with_a_suite_it_says_what_is_left_and_waits_for_it(workplace):
    methods = ("--methods", "slow,raises", "--seeds", "0")
    records = workplace.folder / "store" / "records"
    records.mkdir(parents=True)
    arguments = workplace.command("watch", *methods)
    watching = start(*arguments, cwd=workplace.folder, env=workplace.environment)
    first = watching.stdout.readline()
    assert first == "0 records; 2 left; waiting: no command runs them yet\n"
    workplace.run("run", *methods, "--jobs", "1", code=1)
    out, _ = watching.communicate(timeout=120)
    assert watching.returncode == 1
    assert "slow · tiny · xavier-nx · seed 0: ok in" in out
    broken = "raises · tiny · xavier-nx · seed 0: failed: RuntimeError: this method is broken"
    assert broken in out
    assert out.endswith("nothing is left; 2 records: 1 failed, 1 ok; 0 left\n")


def test_time_left_is_that_of_earlier_runs_of_the_same_kind(
    workplace, reports, make_record, empty_registry
):
    """Of 4 cells one has run: its method's other seed takes as long, the others are unknown."""
    arguments = workplace.command("watch", "--methods", "slow,raises", "--seeds", "0..1")
    plugin, suite = (workplace.folder / name for name in ("plugin.py", "tiny.yaml"))
    chosen = Selection(str(suite), methods=("slow",), plugins=(plugin,), store=workplace.folder)
    cell = chosen.plan()[0].cells[0]
    ran = make_record(
        cell=cell, status="ok", reason="", wall_s=95.0, results=reports.make_record().results
    )
    Store(workplace.folder / "store").write(ran)
    watching = start(*arguments, cwd=workplace.folder, env=workplace.environment)
    first = watching.stdout.readline()
    watching.send_signal(signal.SIGTERM)
    watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert first == (
        "1 record: 1 ok; 3 left, about 1 min 35 s (2 without an earlier run not counted); "
        "waiting: no command runs them yet\n"
    )


def test_a_command_at_work_tells_how_much_is_left_before_it_claims_it(reports, fill):
    make = reports.make_record
    store = fill(make("tent", 0))
    cells = [make("tent", 1).cell, make("shot", 1).cell]
    command = Announcement(store, "a" * 32)
    command.add(cells)
    out = io.StringIO()
    found = look(store)
    assert found.commands == (
        f"process {os.getpid()} on {socket.gethostname()}: 2 of 2 cells left",
    )
    assert set(found.left) == {cell.identity for cell in cells}

    def act():
        wait_for(lambda: "2 left" in out.getvalue())
        store.write(make("tent", 1))
        wait_for(lambda: "1 left" in out.getvalue())
        assert "nothing is left" not in out.getvalue()
        command.close()

    assert watched(store, act, out) is True
    lines = out.getvalue().splitlines()
    assert lines[0] == "1 record: 1 ok; 2 left; waiting: no command runs them yet"
    assert lines[-1] == "nothing is left; 2 records: 2 ok"
    assert not list((store.root / "commands").iterdir())


def test_the_file_of_a_killed_command_is_no_command_and_is_removed(reports, fill):
    store = fill(reports.make_record("tent", 0))
    command = Announcement(store, "b" * 32)
    command.add([reports.make_record("shot", 1).cell])
    (file,) = (store.root / "commands").iterdir()
    file.write_text(re.sub(r'"began":[\d.]+', '"began":1.0', file.read_text()))  # not this process
    assert look(store).commands == ()
    remove_ended(store)
    assert not file.exists()
