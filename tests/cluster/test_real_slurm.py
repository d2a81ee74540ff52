"""The executor ``slurm`` against a real Slurm of one node."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from real_slurm import RealSlurm, missing
from warm_bench import warm_bench

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=f"a real Slurm: {missing()}"),
]
SLURM = ("--executor", "slurm")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    started = RealSlurm(tmp_path_factory.mktemp("slurm"))
    yield started
    started.close()


@pytest.fixture
def place(workplace, real):
    workplace.environment |= real.environment
    return workplace


def status(place) -> str:
    command = ["status", "--store", "store"]
    return warm_bench().run(command, place.folder, place.environment, timeout=120).stdout


def until(true, seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_records_are_equal_and_a_killed_command_loses_nothing(place, real):
    methods = ("--methods", "slow,shot", "--seeds", "0,1")
    process = place.start("run", *SLURM, *methods, cold=True)
    claims = place.folder / "store" / "claims"
    # A task that trains the source model, and four that wait for it.
    until(lambda: real.ask("squeue", "--noheader", "--array", "--format=%j").count("bench-") == 5)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    print(real.ask("squeue"), status(place), sep="\n")
    place.run("run", *SLURM, *methods, timeout=400)
    place.run("run", "--store", "other", *methods)
    queued, local = place.records(), place.records("other")
    assert queued.keys() == local.keys()
    for key, record in queued.items():
        assert (record.status, record.attempt) == ("ok", 1)
        assert record.results.domains == local[key].results.domains
    assert not list(claims.iterdir())


def test_an_array_cancelled_by_hand_is_recorded_and_a_refusal_told(place, real):
    process = place.start("run", *SLURM, "--methods", "sleeps", "--seeds", "0", cold=True)
    claims = place.folder / "store" / "claims"
    running = '"state":"running","ticket":"slurm:'
    until(lambda: any(running in p.read_text() for p in claims.glob("*.json")))
    said = status(place)
    print(said)
    (name,) = re.search(r"slurm:benchtest:(bench-[0-9a-f]+)_0", said).groups()
    real.ask("scancel", f"--name={name}")
    process.communicate(timeout=120)
    assert process.returncode == 1
    (record,) = place.records().values()
    assert record.status == "interrupted"
    print(record.reason)
    done = place.run("run", *SLURM, "--methods", "tent", "--partition", "nights", code=2)
    print(done.stderr)
    assert "the queue refuses" in done.stderr
