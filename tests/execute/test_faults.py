"""Methods that misbehave leave one record each with the right status, and nothing else suffers."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time

import psutil
import pytest


def test_each_fault_is_one_record_and_the_others_finish(workplace):
    done = workplace.run(
        "run", "--methods", "raises,sleeps,exits,leaves-quietly,allocates,peeks,source-only,tent",
        "--seeds", "0", "--timeout", "15", "--memory-limit", "1.5", "--jobs", "2", code=1,
    )  # fmt: skip
    records = {name: r for (name, _, _), r in workplace.records().items()}
    assert {n: r.status for n, r in records.items()} == {
        "raises": "failed",
        "sleeps": "timeout",
        "exits": "failed",
        "leaves-quietly": "failed",
        "allocates": "oom",
        "peeks": "failed",
        "source-only": "ok",
        "tent": "ok",
    }
    assert records["raises"].reason == "RuntimeError: this method is broken on purpose"
    assert records["sleeps"].reason == "no end after 15 s; killed"
    assert records["exits"].reason == "process ended with exit code 1: its last line"
    assert records["leaves-quietly"].reason == "the run ended without a record; see its log"
    assert "exceeds the limit of 1.50 GiB" in records["allocates"].reason
    assert records["allocates"].oom_on == "host"
    assert records["peeks"].reason.startswith("this batch has no labels")
    for name in ("raises", "sleeps", "exits", "allocates"):
        assert records[name].results is None
        assert records[name].reason in done.stdout
    log = (workplace.folder / "store" / records["raises"].log).read_text()
    assert "Traceback" in log
    assert "broken on purpose" in log

    again = workplace.run("run", "--methods", "raises,tent", "--seeds", "0", code=1)
    assert "nothing to run" in again.stderr
    retried = workplace.run(
        "run", "--methods", "raises,tent", "--seeds", "0", "--retry", "failed", code=1
    )
    assert "1 cells to run, 1 done before" in retried.stderr
    assert workplace.records()[("raises", 0, "xavier-nx")].attempt == 2


def test_kill_9_of_everything_then_the_same_command_resumes(workplace):
    methods = ("--methods", "source-only,tent,slow,shot", "--jobs", "2")
    process = workplace.start("run", *methods, cold=True)
    folder = workplace.folder / "store" / "records"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*.json"))) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "no run may outlive the command"

    finished = {path: path.read_bytes() for path in folder.glob("*.json")}
    assert 3 <= len(finished) < 8
    resumed = workplace.run("run", *methods)
    assert f"{8 - len(finished)} cells to run, {len(finished)} done before" in resumed.stderr
    assert {p: p.read_bytes() for p in finished} == finished, "finished cells were run again"

    undisturbed = workplace.run("run", *methods, "--store", "other")
    table, other = (t.stdout.split("records:")[0] for t in (resumed, undisturbed))
    assert table == other


def test_a_failure_of_another_command_does_not_replace_a_result(workplace):
    from bench.execute.base import collect
    from bench.study.job import Job

    workplace.run("run", "--methods", "source-only", "--seeds", "0", "--executor", "inline")
    (record,) = workplace.records().values()
    job = Job(
        run="0" * 16, suite="tiny", store=str(workplace.folder / "store"),
        cells=(record.cell,), attempts=(0,),
    )  # fmt: skip
    for status in ("ok", "interrupted", "timeout"):
        ended = collect(job, record.started, 1.0, status, "from elsewhere")
        assert [r.status for r in ended.records] == ["ok"]
    assert workplace.records() == {("source-only", 0, "xavier-nx"): record}


def test_what_a_run_starts_does_not_outlive_it(workplace):
    workplace.run("run", "--methods", "leaves-a-child", "--seeds", "0")
    (record,) = workplace.records().values()
    said = (workplace.folder / "store" / record.log).read_text().split()
    children = [int(pid) for word, pid in itertools.pairwise(said) if word == "child"]
    assert len(children) == 2
    for pid in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_code_edited_after_the_plan_is_not_recorded_as_the_planned_one(workplace):
    plugin = workplace.folder / "plugin.py"
    process = workplace.start("run", "--methods", "slow,draws", "--seeds", "0", "--jobs", "1")
    folder = workplace.folder / "store" / "logs"
    deadline = time.monotonic() + 120
    while not [p for p in folder.glob("*.log") if not p.name.startswith("source")]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    plugin.write_text(plugin.read_text().replace('print("drew"', 'print("edited"'))
    process.communicate(timeout=60)
    draws = workplace.records()[("draws", 0, "xavier-nx")]
    assert draws.status == "failed"
    assert "the code of method 'draws' changed after this run was planned" in draws.reason


def test_ctrl_c_records_what_ran_as_interrupted_and_exits_130(workplace):
    process = workplace.start("run", "--methods", "source-only,sleeps", "--seeds", "0")
    folder = workplace.folder / "store" / "records"
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGINT)
    before = []
    while "bench: stopping…\n" not in before:  # said at once: what takes its time comes after it
        before.append(process.stderr.readline())
        assert before[-1]
    os.kill(process.pid, signal.SIGINT)  # an impatient second one loses no record
    _, said = process.communicate(timeout=60)
    said = "".join(before) + said
    assert process.returncode == 130, said
    assert "the same command runs the rest" in said
    assert "Traceback" not in said
    statuses = {name: r.status for (name, _, _), r in workplace.records().items()}
    assert statuses == {"source-only": "ok", "sleeps": "interrupted"}
    plan = workplace.run("plan", "--methods", "source-only,sleeps", "--seeds", "0")
    assert "1 of 2 cells done, 1 to run" in plan.stdout


def fill(path):
    """Write until the file system is full."""
    with contextlib.suppress(OSError), path.open("wb", 0) as stream:
        while True:
            stream.write(b"x" * 512)


def test_a_full_disk_stops_with_one_line_and_loses_nothing(workplace):
    workplace.run("run", "--methods", "source-only", "--seeds", "0", "--executor", "inline")
    before = workplace.records()
    folder = workplace.folder / "store" / "records"
    small = workplace.folder / "small"
    small.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=64k tmpfs {small}") != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        (small / "records").mkdir()
        for path in folder.glob("*.json"):
            (small / "records" / path.name).write_bytes(path.read_bytes())
        fill(small / "filler")
        done = workplace.run(
            "run", "--methods", "source-only,tent", "--seeds", "0", "--store", "small", code=2
        )
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert workplace.records("small").keys() == before.keys()
    finally:
        os.system(f"umount -l {small}")
