"""Fifty kills of tasks and of submitting commands lose nothing and change no result."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

import pytest
from fake_slurm import FakeSlurm
from workplace import Workplace

KILLS = int(os.environ.get("BENCH_TEST_KILLS", "50"))


@pytest.mark.slow
def test_random_kills_of_tasks_and_of_the_command_lose_nothing(tmp_path):
    methods = ("--methods", "slow,tent,source-only", "--seeds", "0..9")
    place = Workplace(tmp_path, tmp_path / "cache")
    slurm = FakeSlurm(tmp_path / "slurm")
    place.environment |= slurm.environment
    draws, kills, process = random.Random(0), 0, None
    try:
        while kills < KILLS:
            if process is None or process.poll() is not None:
                process = place.start("run", "--executor", "slurm", *methods, cold=True)
            time.sleep(draws.uniform(0.1, 3.0))
            running = slurm.running()
            if running and draws.random() < 0.7:
                key = draws.choice(sorted(running))
                if slurm.tasks()[key]["state"] == "RUNNING":
                    with suppress(ProcessLookupError):  # it has ended meanwhile
                        os.kill(running[key]["pid"], signal.SIGKILL)
            elif process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
            kills += 1
            if len(list((tmp_path / "store" / "records").glob("*.json"))) == 30:
                for path in (tmp_path / "store" / "records").glob("*.json"):
                    path.unlink()  # there is something left to be killed
        if process is not None and process.poll() is None:
            process.communicate(timeout=600)
        for _ in range(3):
            done = place.start("run", "--executor", "slurm", *methods, cold=True)
            done.communicate(timeout=600)
            if done.returncode == 0:
                break
        assert done.returncode == 0
    finally:
        slurm.close()
    place.run("run", "--store", "other", *methods)
    killed, local = place.records(), place.records("other")
    assert killed.keys() == local.keys()
    assert len(killed) == 30
    for key, record in killed.items():
        assert record.status == "ok"
        assert record.results.domains == local[key].results.domains
    # What a writer was killed in the middle of lies beside: it is removed when it is a day old.
    assert not list((tmp_path / "store" / "claims").glob("*.json"))
