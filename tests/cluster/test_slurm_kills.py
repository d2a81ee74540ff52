"""Random kills of everything that works for the executor ``slurm`` lose and change nothing."""

from __future__ import annotations

import os
import time

import pytest
from random_kills import below, kill_at_random

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("BENCH_KILLS", "50"))


def test_random_kills_lose_nothing(workplace, slurm):
    """Of tasks, what they run and the submitting command; ``BENCH_KILLS``: how many."""
    workplace.run("run", "--methods", "source-only", "--seeds", "0")  # the source model
    seeds = int(os.environ.get("BENCH_KILL_SEEDS", "10"))
    methods = ("--methods", "slow,tent", "--seeds", f"0..{seeds - 1}")
    command = ("--executor", "slurm", *methods)
    began = time.monotonic()

    def victims(pid: int) -> dict[str, list[int]]:
        tasks = [task["pid"] for task in slurm.running().values() if task["pid"]]
        asked = [process.pid for process in below(pid, "squeue", "sacct", "sbatch")]
        return {"run": tasks, "queue's command": asked}

    killed = kill_at_random(workplace, command, KILLS, victims, 2 * seeds + 1, 0.5)
    print(f"\n{killed.total()} kills in {time.monotonic() - began:.0f} s: {dict(killed)}")
    workplace.run("run", "--store", "other", *methods)
    local, found = workplace.records("other"), workplace.records()
    assert len(local) == 2 * seeds
    for key, record in local.items():
        assert found[key].results.domains == record.results.domains
    # What a writer was killed in the middle of lies beside: it is removed when it is a day old.
    assert not list((workplace.folder / "store" / "claims").glob("*.json"))
