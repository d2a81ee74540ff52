"""The executor ``slurm`` against commands of a Slurm that runs jobs as local processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

import pytest
from warm_bench import warm_bench

SLURM = ("--executor", "slurm")


def status(workplace) -> str:
    command = ["status", "--store", "store"]
    done = warm_bench().run(command, workplace.folder, workplace.environment, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def until(true, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def claims_of(workplace) -> str:
    """All that claims say."""
    found = []
    for path in (workplace.folder / "store" / "claims").glob("*.json"):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return "\n".join(found)


def kill(process) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize("slurm", [True], indirect=True)
def test_its_records_are_those_of_the_local_processes(workplace, slurm):
    methods = ("--methods", "source-only,shot", "--seeds", "0")
    done = workplace.run("run", *SLURM, *methods)
    assert "[2/2]" in done.stderr
    workplace.run("run", "--store", "other", *methods)
    queued, local = workplace.records(), workplace.records("other")
    assert queued.keys() == local.keys()
    for key, record in queued.items():
        assert (record.status, record.attempt) == ("ok", 1)
        assert record.results.domains == local[key].results.domains
        assert record.results.source_before == local[key].results.source_before
        assert (workplace.folder / "store" / record.log).is_file()
    assert not list((workplace.folder / "store" / "claims").iterdir())
    assert not list((workplace.folder / "store" / "batches").iterdir())
    assert {task["state"] for task in slurm.tasks().values()} == {"COMPLETED"}
    again = workplace.run("run", *SLURM, *methods)
    assert "nothing to run" in again.stderr


def test_a_dry_run_prints_the_lines_and_submits_nothing(workplace, slurm):
    text = (workplace.folder / "tiny.yaml").read_text()
    asked = "resources: {partition: night, mem: 2G, sbatch: [--account=lab]}\n"
    (workplace.folder / "tiny.yaml").write_text(text + asked)
    options = ("--minutes", "7", "--partition", "debug", "--jobs", "3")
    done = workplace.run("run", *SLURM, "--dry-run", *options)
    lines = done.stdout.splitlines()
    assert all(line.startswith("sbatch --job-name=bench-") for line in lines)
    runs = lines[-1]
    for part in ("--array=0-5%3", "--time=7", "--mem=2G", "--partition=debug", "--account=lab"):
        assert part in runs.split()
    assert "bench.cluster.task" in runs
    assert slurm.tasks() == {}
    done = workplace.run("run", "--dry-run", code=2)
    assert "executor 'processes' submits nothing to a queue" in done.stderr
    done = workplace.run("run", "--mem", "2G", code=2)
    assert "--mem: executor 'processes' has no queue to ask" in done.stderr
    done = workplace.run("run", *SLURM, "--mem", "much", code=2)
    assert "--mem much: give megabytes, or as 8G" in done.stderr


def test_a_search_asks_for_the_resources_of_the_suite(workplace, slurm):
    text = (workplace.folder / "tiny.yaml").read_text()
    asked = "resources: {partition: debug, mem: 2G, minutes: 9, sbatch: [--account=lab]}\n"
    (workplace.folder / "tiny.yaml").write_text(text + asked)
    workplace.environment["BENCH_CACHE"] = str(workplace.folder / "cache")  # without source model
    options = ("--methods", "tent", "--trials", "1", "--seeds", "0,1", "--out", "t.tuned.yaml")
    workplace.run("tune", *SLURM, *options)
    lines = (slurm.folder / "sbatch.log").read_text().splitlines()
    assert len(lines) >= 2  # the source model, and a run of the trial at least
    for line in lines:
        assert {"--partition=debug", "--mem=2G", "--time=9", "--account=lab"} <= set(line.split())


def test_short_runs_share_a_task_once_their_time_is_known(workplace, slurm):
    workplace.run("run", "--seeds", "0")
    workplace.run("run", *SLURM, "--seeds", "1..4")
    tasks = list(slurm.tasks().values())
    assert len(tasks) == 1  # 12 runs
    assert "--time=15" in (slurm.folder / "sbatch.log").read_text().splitlines()[-1]
    assert len(workplace.records()) == 15


def test_a_queue_that_refuses_is_told_in_one_line_and_nothing_stays(workplace, slurm):
    done = workplace.run("run", *SLURM, "--partition", "nights", code=2)
    (line,) = [line for line in done.stderr.splitlines() if "queue refuses" in line]
    assert "Invalid partition name specified" in line
    assert "--partition=nights" in line
    assert not list((workplace.folder / "store" / "claims").iterdir())
    workplace.run("run", *SLURM)
    assert len(workplace.records()) == 6


def test_a_queue_that_is_full_gets_the_rest_later(workplace, slurm):
    workplace.run("run", "--seeds", "0", "--methods", "source-only")  # the source model
    slurm.set(max_submit=2)
    done = workplace.run("run", *SLURM, "--methods", "tent", "--seeds", "0..4", code=2)
    assert "QOSMaxSubmitJobPerUserLimit" in done.stderr
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_without_slurm_it_says_so(workplace):
    workplace.environment["PATH"] = "/nonexistent"
    done = workplace.run("run", *SLURM, code=2)
    assert "there is no sbatch on this machine" in done.stderr


def one_run(workplace, method: str, *options: str):
    """A command that runs in the queue, once the run of ``method`` is in the middle."""
    process = workplace.start("run", *SLURM, "--seeds", "0", "--methods", method, *options)
    begun = '"state":"running","ticket":"slurm:'

    def running() -> bool:
        assert process.poll() is None, process.stderr.read()
        return begun in claims_of(workplace)

    until(running)
    return process


def last_key(slurm) -> str:
    (key,) = slurm.running()
    return key


@pytest.mark.parametrize(
    ("state", "status_", "oom_on", "accounting"),
    [
        ("OUT_OF_MEMORY", "oom", "host", True),
        ("TIMEOUT", "timeout", None, True),
        ("OUT_OF_MEMORY", "oom", "host", False),
    ],
)
def test_what_the_queue_says_becomes_the_record(
    workplace, slurm, state, status_, oom_on, accounting
):
    slurm.set(accounting=accounting)
    process = one_run(workplace, "sleeps")
    slurm.end(last_key(slurm), state)
    process.communicate(timeout=60)
    assert process.returncode == 1
    (record,) = workplace.records().values()
    assert (record.status, record.oom_on) == (status_, oom_on)
    assert f"the queue says {state}" in record.reason


@pytest.mark.parametrize(
    "state",
    ["NODE_FAIL", *(pytest.param(s, marks=pytest.mark.slow) for s in ("PREEMPTED", "FAILED"))],
)
def test_what_a_node_did_is_run_again_at_most_twice(workplace, slurm, state):
    process = one_run(workplace, "sleeps")
    ended = []
    for _ in range(3):
        until(lambda: set(slurm.running()) - set(ended))
        (key,) = slurm.running()
        begun = f'"state":"running","ticket":"slurm:fake:{slurm.tasks()[key]["name"]}_0"'
        until(lambda begun=begun: begun in claims_of(workplace))
        ended.append(key)
        slurm.end(key, state)
    process.communicate(timeout=60)
    assert process.returncode == 1
    (record,) = workplace.records().values()
    assert record.status == "interrupted"
    assert f"the queue says {state}" in record.reason


def test_an_array_cancelled_by_hand_is_recorded_and_goes_on(workplace, slurm):
    process = one_run(workplace, "slow,sleeps", "--timeout", "600")
    key = last_key(slurm) if len(slurm.running()) == 1 else next(iter(slurm.running()))
    name = slurm.tasks()[key]["name"]
    bin_ = slurm.folder / "bin" / "scancel"
    os.spawnve(
        os.P_WAIT, str(bin_), ["scancel", f"--name={name}"], {**os.environ, **slurm.environment}
    )
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 1, said
    assert {r.status for r in workplace.records().values()} <= {"interrupted", "ok"}
    assert "interrupted" in {r.status for r in workplace.records().values()}
    workplace.run("run", *SLURM, "--seeds", "0", "--methods", "slow")
    assert workplace.records()[("slow", 0, "xavier-nx")].status == "ok"


def test_a_submitting_command_that_is_killed_loses_nothing(workplace, slurm):
    methods = ("--methods", "slow,tent", "--seeds", "0..3")
    process = workplace.start("run", *SLURM, *methods)
    until(lambda: len(slurm.tasks()) > 2 and slurm.running())
    kill(process)
    said = status(workplace)
    assert re.search(r"queued: (slow|tent) · tiny · xavier-nx · seed \d \(slurm:fake:bench-", said)
    assert "lost" not in said
    submitted = len(slurm.tasks())
    done = workplace.run("run", *SLURM, *methods)  # waits for what the queue holds
    assert "being run by another command" in done.stderr
    records = workplace.records()
    assert {(r.status, r.attempt) for r in records.values()} == {("ok", 1)}
    assert len(records) == 8
    assert len(slurm.tasks()) == submitted  # nothing twice
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_one_killed_before_it_hears_of_its_job_finds_it_by_its_name(workplace, slurm):
    workplace.run("run", "--seeds", "0", "--methods", "source-only")
    slurm.set(die_after_sbatch=1)
    process = workplace.start("run", *SLURM, "--seeds", "0", "--methods", "slow")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    slurm.set(die_after_sbatch=0)
    submitted = len(slurm.tasks())
    workplace.run("run", *SLURM, "--seeds", "0", "--methods", "slow")
    assert len(slurm.tasks()) == submitted == 1
    assert workplace.records()[("slow", 0, "xavier-nx")].attempt == 1


@pytest.mark.parametrize(
    ("state", "status_"),
    [("OUT_OF_MEMORY", "oom"), pytest.param("TIMEOUT", "timeout", marks=pytest.mark.slow)],
)
def test_what_the_queue_says_when_the_command_is_gone_is_read_by_the_next(
    workplace, slurm, state, status_
):
    process = one_run(workplace, "sleeps")
    kill(process)
    slurm.end(last_key(slurm), state)
    submitted = len(slurm.tasks())
    workplace.run("run", *SLURM, "--seeds", "0", "--methods", "sleeps", code=1)
    (record,) = workplace.records().values()
    assert (record.status, record.attempt) == (status_, 1)
    assert f"the queue says {state}" in record.reason
    assert len(slurm.tasks()) == submitted
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_status_tells_what_the_queue_says_while_nothing_of_ours_runs(workplace, slurm):
    kill(one_run(workplace, "sleeps"))
    title = "sleeps · tiny · xavier-nx · seed 0"
    assert re.search(f"running: {title} .*, the queue says RUNNING", status(workplace))
    slurm.end(last_key(slurm), "TIMEOUT")
    said = status(workplace)
    assert re.search(f"lost: {title} .*, the queue says TIMEOUT; the same command runs", said)
    assert "does not answer" not in said
    slurm.set(down=True)
    (line,) = [line for line in status(workplace).splitlines() if "not answer" in line]
    assert line == "the queue of executor 'slurm' does not answer"
    slurm.set(down=False)


def test_a_queue_and_a_laptop_share_the_cells(workplace, slurm):
    methods = ("--methods", "slow,tent", "--seeds", "0..3")
    queue = workplace.start("run", *SLURM, *methods)
    until(lambda: slurm.running())
    laptop = dict(workplace.environment)
    workplace.environment["PATH"] = os.environ["PATH"]  # no queue to ask
    local = workplace.start("run", *methods, "--jobs", "1")
    workplace.environment = laptop
    said = [process.communicate(timeout=200)[1] for process in (queue, local)]
    assert (queue.returncode, local.returncode) == (0, 0), said
    records = workplace.records()
    assert {(r.status, r.attempt) for r in records.values()} == {("ok", 1)}
    logs = {p.stem for p in (workplace.folder / "store" / "logs").glob("*.log")}
    own = {log for log in logs if re.fullmatch("[0-9a-f]{16}", log)}
    assert own <= {record.run for record in records.values()}  # no run was for nothing


def test_ctrl_c_cancels_what_is_queued_and_records_what_ran(workplace, slurm):
    process = one_run(workplace, "sleeps,slow")
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 130, said
    until(lambda: not slurm.running())
    record = workplace.records()[("sleeps", 0, "xavier-nx")]
    assert record.status == "interrupted", record.reason
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_a_controller_that_does_not_answer_loses_nothing(workplace, slurm):
    process = one_run(workplace, "slow")
    slurm.set(down=True)
    time.sleep(3)
    assert process.poll() is None
    slurm.set(down=False)
    said = process.communicate(timeout=90)[1]
    assert process.returncode == 0, said
    assert workplace.records()[("slow", 0, "xavier-nx")].status == "ok"


def test_a_source_model_that_fails_ends_the_command(workplace, slurm):
    plugin = workplace.folder / "plugin.py"
    text = plugin.read_text()
    plugin.write_text(text.replace("epochs=8, learning_rate=3e-3", "epochs=9, learning_rate=1e30"))
    done = workplace.run("run", *SLURM, "--seeds", "0", code=2)
    assert "training tiny on the source" in done.stderr
    assert "diverged" in done.stderr
    assert not slurm.running()
    assert not list((workplace.folder / "store" / "claims").iterdir())
