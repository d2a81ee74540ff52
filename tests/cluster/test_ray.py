"""The executor ``ray`` against a module that stands in for Ray's: what it asks for, what it makes
of how tasks end. A real Ray is in test_real_ray.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_ray import FakeRay

from bench.errors import BenchError
from bench.execute.base import Limits
from bench.execute.campaign import dry_run_plan, make_executor, run_plan
from bench.execute.claims import folder, process_lives, process_name, queue_knows
from bench.study.resources import Resources, resources_of
from bench.study.selection import Selection


@pytest.fixture
def ray(monkeypatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake.module())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return fake


@pytest.fixture
def run(workplace, monkeypatch, empty_registry):
    """Run cells of the small suite in this process; the records by method and seed."""
    monkeypatch.setenv("BENCH_CACHE", workplace.environment["BENCH_CACHE"])
    monkeypatch.chdir(workplace.folder)
    from bench import registry

    registry.add_plugin(Path("plugin.py"))

    def run(executor="ray", store="store", methods="source-only", seeds=(0,), asked=None, **more):
        chosen = tuple(methods.split(","))
        selection = Selection("tiny.yaml", methods=chosen, seeds=seeds, store=Path(store))
        plan, opened = selection.plan(warn=print)
        resources, given = resources_of(plan.suite.resources, asked or {})
        runner = make_executor(executor, more.pop("jobs", None), Limits(**more), None, 1,
                               resources, given)  # fmt: skip
        outcome = run_plan(plan, opened, runner)
        assert not outcome.missing
        if executor == "ray":
            assert not list(folder(opened).iterdir())
            assert not list((opened.root / "batches").iterdir())
        return {(r.cell.method.name, r.cell.seed): r for r in outcome.records}

    return run


def test_its_records_are_those_of_this_process(ray, run):
    queued = run(methods="source-only,shot", seeds=(0, 1))
    local = run("inline", "other", methods="source-only,shot", seeds=(0, 1))
    assert queued.keys() == local.keys()
    for key, record in queued.items():
        assert (record.status, record.attempt) == ("ok", 1)
        assert record.results.domains == local[key].results.domains
    assert not ray.open
    assert {task.options["max_retries"] for task in ray.tasks} == {0}
    *making, a, b, c, d = ray.tasks
    assert [task.options["num_cpus"] for task in (a, b, c, d)] == [1] * 4
    assert all(task.options["num_cpus"] == 2 for task in making)  # a source model has two threads
    assert ray.started[0]["address"] is None


def test_what_a_task_asks_for(ray, run):
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with pytest.raises(BenchError, match=f"--ray-address {address}: no cluster can be used"):
            run(asked={"--ray-address": address})
        head.listen()
        asked = {"--mem": "3G", "--ray-address": address}
        run(asked=asked, jobs=1, memory_bytes=2.9 * 2**30)
    task = ray.tasks[-1]
    assert task.options["memory"] == 3 * 2**30
    assert ray.started == [{"address": address, "log_to_driver": False, "logging_level": 40}]
    assert Resources(mem="500").memory_bytes == 500 * 2**20
    with pytest.raises(BenchError, match="--partition: executor 'ray' knows no such thing"):
        run(asked={"--partition": "night"})
    with pytest.raises(BenchError, match="--ray-address two words: give the address"):
        run(asked={"--ray-address": "two words"})


@pytest.mark.parametrize(
    ("endings", "status", "oom_on", "said"),
    [
        (["OutOfMemoryError"], "oom", "host", "OUT_OF_MEMORY, OutOfMemoryError: it was so"),
        (["RayTaskError"], "failed", None, "FAILED, RayTaskError: it was so"),
        ([2], "failed", None, "FAILED, exit code 2"),
        (["WorkerCrashedError"] * 3, "interrupted", None, "LOST, WorkerCrashedError: it was so"),
        ([-9] * 3, "interrupted", None, "killed by signal 9"),
        (["early NodeDiedError"] * 3, "interrupted", None, "NODE_FAIL"),
        (["WorkerCrashedError", "NodeDiedError"], "ok", None, ""),
        (["early OutOfMemoryError"], "ok", None, ""),
    ],
)
def test_how_a_task_ends_is_the_record(ray, run, endings, status, oom_on, said):
    run(methods="source-only", seeds=(7,))  # the source model
    ray.endings.extend(endings)
    before = len(ray.tasks)
    (record,) = run(methods="tent").values()
    assert (record.status, record.oom_on) == (status, oom_on)
    assert said in record.reason
    once = len(endings) + (status == "ok")
    assert len(ray.tasks) - before == once  # ours counts, Ray repeats nothing
    assert record.attempt == 1


def test_a_cluster_that_is_gone_ends_the_command(ray, run):
    run(seeds=(7,))
    broken = ray.errors["RaySystemError"]
    sys.modules["ray"].wait = lambda *_, **__: (_ for _ in ()).throw(broken("head died"))
    with pytest.raises(BenchError, match="cannot be reached any more: RaySystemError: head died"):
        run(methods="tent")
    assert not ray.open


def test_tickets_live_as_long_as_the_command():
    assert process_lives(process_name()) is True
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    machine, pid, began = process_name().split("-")
    assert pid == str(os.getpid())
    assert process_lives(f"{machine}-{done.pid}-{began}") is False
    assert process_lives(f"{machine}-{pid}-1.5") is False
    assert process_lives(f"00000000-{pid}-{began}") is None
    assert queue_knows(f"ray:{process_name()}:bench-0123456789ab_0") is True


def test_without_ray_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"pip install 'edge-adaptation-bench\[ray\]'"):
        make_executor("ray")


def test_a_dry_run_says_how_many_tasks_ask_for_what(ray, workplace, monkeypatch, empty_registry):
    monkeypatch.chdir(workplace.folder)
    chosen = Selection("tiny.yaml", methods=("tent",), store=Path("store"),
                       model="digits-vit", plugins=(Path("plugin.py"),))  # fmt: skip
    plan, store = chosen.plan(warn=print)
    runner = make_executor("ray", resources=Resources(mem="2G", gpus=1))
    (line,) = dry_run_plan(plan, store, runner)
    assert line == "2 runs in tasks of Ray, each with num_cpus=1, num_gpus=1, memory=2147483648"
    assert not ray.tasks
    assert not ray.started
