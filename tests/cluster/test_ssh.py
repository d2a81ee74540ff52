"""Runs on a board behind a real sshd on the loopback: records, the lock, and what goes wrong."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback_sshd import Sshd
from workplace import Workplace

import bench
from bench import registry
from bench.cluster import prepare_board, ssh
from bench.cluster.boards import add_board
from bench.cluster.connection import Connection, ConnectionLost
from bench.cluster.prepare_board import ready
from bench.errors import BenchError

pytestmark = pytest.mark.ssh

WAITS = '''
@register("method", "waits")
class Waits(Method):
    """Takes seconds, so that the network can fail in the middle."""
    def adapt(self, domain, window):
        time.sleep(4)
'''


@pytest.fixture
def place(tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setenv("BENCH_BOARDS", str(tmp_path / "boards.json"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    add_board(sshd.board())
    place = Workplace(tmp_path, tmp_path / "cache")
    with (tmp_path / "plugin.py").open("a") as stream:
        stream.write(WAITS)
    monkeypatch.chdir(tmp_path)
    return place


def run(store: str, methods: str, **more: Any) -> list:
    return bench.run_suite(
        "tiny.yaml", plugins="plugin.py", store=store, methods=methods, seeds="0", **more
    ).records


@pytest.fixture
def on_board(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs of this process go to the board; each test has a plugin of its own."""
    monkeypatch.setenv("BENCH_BOARD", "loop")
    monkeypatch.setattr(ssh, "AGAIN_S", (0.5, 1.0, 2.0, 2.0))
    with registry.isolated():
        yield


def started(sshd: Sshd) -> int:
    """The process of the run, once it is there."""
    for _ in range(600):
        for file in (sshd.folder / "board" / "jobs").glob("*/pid"):
            if text := file.read_text():
                return int(text)
        time.sleep(0.1)
    raise AssertionError("no run was started")


def gone(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_records_are_those_of_local_processes(place: Workplace, sshd: Sshd) -> None:
    place.run("run", "--seeds", "0")
    here = place.records()
    place.run("run", "--seeds", "0", "--on", "loop", "--device", "xavier-nx", "--store", "there")
    there = place.records("there")
    assert here.keys() == there.keys()
    for key, record in here.items():
        other = there[key]
        assert (other.identity, other.status, other.attempt) == (record.identity, "ok", 1)
        assert other.source_model == record.source_model
        one, two = (r.results.model_dump() for r in (record, other))
        for costs in (one["costs"], two["costs"]):
            del costs["tracing_s"]
        assert one == two
        assert other.environment["board"] == "loop"
        assert (place.folder / "there" / other.log).is_file()
    assert not list((sshd.folder / "board" / "jobs").iterdir())


def test_measured_costs_of_two_machines_share_no_store(place: Workplace) -> None:
    only = ("--seeds", "0", "--methods", "source-only")
    place.run("run", *only, "--on", "loop")
    ((_, record),) = place.records().items()
    assert record.cell.device == "host"
    assert record.results.costs.adaptation_time.kind == "measured"
    done = place.run("run", *only, "--device", "host", code=2)
    assert "measured on loop, which share no table with those of this machine" in done.stderr


def test_one_run_has_the_board(place: Workplace, sshd: Sshd) -> None:
    lock = sshd.folder / "board" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        held.write("ann@shelf (process 7)")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        done = place.run("run", "--on", "loop", "--methods", "source-only", code=2)
    assert "board loop: in use by ann@shelf (process 7): wait until" in done.stderr


@pytest.mark.usefixtures("on_board")
def test_a_lost_connection_is_made_again(place: Workplace, sshd: Sshd) -> None:
    def cut() -> None:
        started(sshd)
        sshd.drop()
        time.sleep(1.5)
        sshd.start()

    thread = threading.Thread(target=cut)
    thread.start()
    (record,) = run("store", "waits", executor="ssh")
    thread.join()
    assert (record.status, record.attempt) == ("ok", 1)


@pytest.mark.usefixtures("on_board")
def test_a_connection_that_stays_away_is_recorded(place: Workplace, sshd: Sshd) -> None:
    pids = []

    def cut() -> None:
        pids.append(started(sshd))
        sshd.drop()

    thread = threading.Thread(target=cut)
    thread.start()
    (record,) = run("store", "sleeps", executor="ssh")
    thread.join()
    assert record.status == "interrupted"
    assert "the connection was lost, and 4 attempts failed: board loop" in record.reason
    assert "Connection refused: start sshd there" in record.reason
    os.killpg(pids[0], signal.SIGKILL)  # what the agent would do after three minutes


def test_ctrl_c_stops_the_run_there(place: Workplace, sshd: Sshd) -> None:
    process = place.start("run", "--on", "loop", "--methods", "sleeps", "--seeds", "0", cold=True)
    pid = started(sshd)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert gone(pid)
    (record,) = place.records().values()
    assert (record.status, "Ctrl-C" in record.reason) == ("interrupted", True)


@pytest.mark.usefixtures("on_board")
def test_a_run_that_takes_too_long_or_dies_is_recorded(place: Workplace, sshd: Sshd) -> None:
    (record,) = run("store", "sleeps", executor="ssh", timeout_s=8)
    assert (record.status, record.reason) == ("timeout", "no end after 8 s; killed")
    (record,) = run("store", "exits", executor="ssh")
    assert record.status == "failed"
    assert record.reason == "process ended with exit code 1 on board loop: its last line"


def test_what_a_board_lacks_is_one_line(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ready(Connection(sshd.board())).facts
    assert facts["python"][:2] >= [3, 11]
    with pytest.raises(BenchError, match=r"python9.*: name Python there"):
        ready(Connection(sshd.board(python="/nowhere/python9")))
    (sshd.folder / "authorized_keys").write_text("")
    with pytest.raises(ConnectionLost, match=r"Permission denied.*ssh-copy-id"):
        ready(Connection(sshd.board()))
    (sshd.folder / "authorized_keys").write_text((sshd.folder / "user_key.pub").read_text())
    monkeypatch.setattr(prepare_board, "OLDEST", (9, 9))
    with pytest.raises(BenchError, match=r"this package needs 9.9: .*bench device probe"):
        ready(Connection(sshd.board()))
    monkeypatch.setattr(prepare_board, "OLDEST", (3, 11))
    monkeypatch.setattr(prepare_board, "LEAST_FREE", 1e18)
    with pytest.raises(BenchError, match=r"its disk has \d+ MB free: free"):
        ready(Connection(sshd.board()))
    sshd.drop()
    with pytest.raises(ConnectionLost, match="Connection refused: start sshd there"):
        ready(Connection(sshd.board()))


def test_a_library_that_is_missing_is_named(sshd: Sshd, tmp_path: Path) -> None:
    bare = tmp_path / "bare-python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(BenchError, match=r"there has no torch: install what the project needs"):
        ready(Connection(sshd.board(python=str(bare))))
