"""The executor ``ray`` against a real Ray of two workers on this machine."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from random_kills import below, kill_at_random

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed"),
]
RAY = ("--executor", "ray", "--jobs", "2")
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
"""Clusters of the tests, on the loopback alone, ask for none."""
KILLS = int(os.environ.get("BENCH_KILLS", "50"))


def until(true, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def end(process, code: int, seconds: float = 300.0) -> str:
    said = process.communicate(timeout=seconds)[1]
    assert process.returncode == code, said
    return said


def ray_workers(pid: int) -> list[int]:
    """Workers of Ray that run a task of ours."""
    tasks = below(pid, "bench.cluster.task")
    return [task.ppid() for task in tasks if psutil.pid_exists(task.pid)]


def running(workplace) -> bool:
    claims = workplace.folder / "store" / "claims"
    return any('"state":"running","ticket":"ray:' in p.read_text() for p in claims.glob("*.json"))


class Cluster:
    """A head node in processes of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._process = None
        self.begin()

    def begin(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-c", "import sys; from ray.scripts.scripts import main; main()",
                "start", "--head", "--block", "--num-cpus=2", f"--port={self.port}",
                "--node-ip-address=127.0.0.1", "--include-dashboard=false",
                "--disable-usage-stats", f"--temp-dir={self._folder}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env={**os.environ, **NO_TOKEN},
        )  # fmt: skip
        until(lambda: self._answers() and len(self.scheduler()) == 2, 120)

    def _answers(self) -> bool:
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    @property
    def pid(self) -> int:
        return self._process.pid

    def scheduler(self) -> list[int]:
        """Of the node, and of the cluster."""
        return [process.pid for process in below(self.pid, "raylet/raylet", "gcs_server")]

    def close(self) -> None:
        """Kill all of it."""
        tree = psutil.Process(self.pid).children(recursive=True) if self._process else []
        for process in [*tree, psutil.Process(self.pid)]:
            if process.is_running():
                process.kill()
        self._process.wait()
        psutil.wait_procs(tree, timeout=20)


@pytest.fixture
def cluster(tmp_path_factory):
    started = Cluster(Path("/tmp") / f"ray-{os.getpid()}")  # a socket's path must be short
    yield started
    started.close()


def test_three_executors_make_bit_equal_records(workplace):
    methods = ("--methods", "source-only,tent,shot", "--seeds", "0")
    end(workplace.start("run", *RAY, *methods, cold=True), 0)
    workplace.run("run", "--store", "local", *methods)
    workplace.run("run", "--store", "here", "--executor", "inline", *methods)
    found = [workplace.records(name) for name in ("store", "local", "here")]
    assert [len(records) for records in found] == [3, 3, 3]
    for key, record in found[0].items():
        for other in (found[1][key], found[2][key]):
            assert (record.status, record.attempt) == ("ok", 1)
            assert record.identity == other.identity
            assert record.results.domains == other.results.domains
            assert record.results.source_before == other.results.source_before
            assert record.results.source_after == other.results.source_after
            assert record.source_model == other.source_model
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_a_dead_worker_and_ctrl_c(workplace):
    process = workplace.start("run", *RAY, "--methods", "sleeps", "--seeds", "0", cold=True)
    until(lambda: running(workplace))
    (worker,) = ray_workers(process.pid)
    tasks = below(process.pid, "bench.cluster.task", "bench.execute.fork_server")
    os.kill(worker, signal.SIGKILL)
    _, alive = psutil.wait_procs(tasks, timeout=20)
    assert not alive, "what a worker had started outlives it"
    until(lambda: ray_workers(process.pid) and running(workplace))
    process.send_signal(signal.SIGINT)
    print(end(process, 130))
    (record,) = workplace.records().values()
    print(record.status, record.reason)
    assert record.status == "interrupted"
    assert not list((workplace.folder / "store" / "claims").iterdir())


def test_a_worker_that_ray_kills_for_memory_is_a_record(workplace):
    workplace.run("run", "--methods", "source-only", "--seeds", "0")  # the source model
    memory = psutil.virtual_memory()
    most = (memory.total - memory.available + 4e9) / memory.total
    workplace.environment |= {"RAY_memory_usage_threshold": f"{most:.3f}"}
    said = end(workplace.start("run", *RAY, "--methods", "allocates", "--seeds", "0", cold=True), 1)
    record = workplace.records()[("allocates", 0, "xavier-nx")]
    print(record.status, record.oom_on, record.reason, said, sep="\n")
    assert (record.status, record.oom_on, record.attempt) == ("oom", "host", 1)
    assert "OutOfMemoryError" in record.reason


def test_random_kills_lose_nothing(workplace, cluster):
    """Of workers, the scheduler and the submitting command; ``BENCH_KILLS``: how many."""
    workplace.environment |= NO_TOKEN
    workplace.run("run", "--methods", "source-only", "--seeds", "0")  # the source model
    seeds = int(os.environ.get("BENCH_KILL_SEEDS", "10"))
    command = (*RAY, "--ray-address", cluster.address, "--methods", "slow,tent",
               "--seeds", f"0..{seeds - 1}")  # fmt: skip
    began = time.monotonic()

    def victims(pid: int) -> dict[str, list[int]]:
        scheduler = cluster.scheduler()
        if len(scheduler) < 2:
            cluster.close()
            cluster.begin()
            scheduler = cluster.scheduler()
        runs = below(cluster.pid, "bench.cluster.task", "bench.execute.fork_server")
        return {
            "worker": ray_workers(cluster.pid),
            "run": [process.pid for process in runs],
            "scheduler": scheduler,
        }

    killed = kill_at_random(workplace, command, KILLS, victims, 2 * seeds + 1)
    print(f"\n{killed.total()} kills in {time.monotonic() - began:.0f} s: {dict(killed)}")
