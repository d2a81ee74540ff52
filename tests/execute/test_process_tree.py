"""Time that is counted, processes that are seen, and names of signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.execute.process_tree import LONGEST_TICK_S, ActiveTime, ProcessTree, signal_name
from bench.io.run_output import last_line, new_lines

TWO = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(80_000_000); input()"],
                         stdin=subprocess.PIPE)
print("started", flush=True)
input()
"""


FORKS = """
import os, time
x = bytearray(100_000_000)
x[::4096] = b"1" * len(x[::4096])
for _ in range(3):
    if os.fork() == 0:
        time.sleep(600)
y = bytearray(50_000_000)
print("started", flush=True)
input()
"""


def test_only_time_in_which_work_could_go_on_counts(monkeypatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    active = ActiveTime()
    for step, stopped, total in (
        (0.1, False, 0.1),
        (0.5, True, 0.1),
        (0.2, False, 0.3),
        (3600.0, False, 0.3 + LONGEST_TICK_S),  # nobody looked: the machine was asleep
        (3600.0, True, 0.3 + LONGEST_TICK_S),
    ):
        now += step
        active.look(stopped)
        assert active.seconds == pytest.approx(total)


def started(code: str) -> tuple[subprocess.Popen[bytes], ProcessTree]:
    """A process of Python that has said so."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process, ProcessTree(process.pid)


def test_a_tree_is_seen_measured_stopped_and_ended() -> None:
    process, tree = started(TWO)
    (child,) = psutil.Process(process.pid).children()
    deadline = time.monotonic() + 30
    while tree.resident_bytes() < 80_000_000:
        assert time.monotonic() < deadline
        tree.look()
    assert not tree.stopped
    os.kill(process.pid, signal.SIGSTOP)
    while not tree.stopped:
        assert time.monotonic() < deadline
    assert not tree.ended
    tree.kill_all()
    while not tree.ended:
        assert time.monotonic() < deadline
    process.communicate()
    assert not tree.stopped
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells who shares a page")
def test_what_forked_processes_share_can_count_once() -> None:
    process, tree = started(FORKS)
    tree.look()
    try:
        assert tree.resident_bytes() > 400_000_000
        assert 150_000_000 < tree.resident_bytes(shared_once=True) < 250_000_000
    finally:
        tree.kill_all()
        process.communicate()


@pytest.mark.parametrize(
    ("number", "name"),
    [(9, "SIGKILL"), (34, "SIGRTMIN"), (40, "SIGRTMIN+6"), (64, "SIGRTMAX"), (99, "signal 99")],
)
def test_every_signal_has_a_name(number: int, name: str) -> None:
    assert signal_name(number) == name


def test_output_is_read_line_by_line_and_its_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    assert new_lines(log, 0) == ([], 0)
    assert last_line(log) == "no log was written"
    log.write_bytes(b"")
    assert last_line(log) == "its log is empty"
    log.write_bytes(b"one\ntwo\n\x1b[31mthr")
    assert new_lines(log, 0) == ([b"one", b"two"], 8)
    assert last_line(log) == "thr"
    log.write_bytes(log.read_bytes() + b"ee" * 1_000_000)
    assert new_lines(log, 8) == ([], 8)
    assert len(last_line(log)) == 300
