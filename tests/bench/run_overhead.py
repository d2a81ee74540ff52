"""What a run costs besides itself: its start in a warm launcher, and further modelled devices.

``python tests/bench/run_overhead.py FOLDER [METHOD]``: of cells of the suite ``domain-shift`` on
its small model, one at a time. Prints the seconds from handing over a run until it has ended, less
those that its record has, and the CPU seconds of runs on one device and on four that share them.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path

import psutil

from bench.execute.campaign import Campaign, make_executor
from bench.records.record import Record
from bench.study.selection import Selection

DEVICES = ("agx-orin", "orin-nano", "xavier-nx", "agx-xavier")
REPEATS = 3


def records(folder: Path, method: str, devices: tuple[str, ...], executor: str) -> list[Record]:
    """Run a cell on devices in a store of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    chosen = Selection(
        "domain-shift", methods=(method,), model="digits-vit", devices=devices, seeds=(0,),
        variants=("full",), untuned=True, store=folder,
    )  # fmt: skip
    plan, store = chosen.plan(warn=lambda _: None)
    with Campaign(store, make_executor(executor, 1)) as campaign:
        campaign.prepare(plan.missing)
        campaign.run(plan.jobs(store))
    return list(store)


def start_up(folder: Path) -> list[float]:
    """Seconds of a run that its record does not have, for runs after the first."""
    seeds = tuple(range(REPEATS + 1))
    shutil.rmtree(folder, ignore_errors=True)
    chosen = Selection(
        "domain-shift", methods=("source-only",), model="digits-vit", devices=DEVICES[:1],
        seeds=seeds, variants=("full",), untuned=True, store=folder,
    )  # fmt: skip
    plan, store = chosen.plan(warn=lambda _: None)
    found = []
    executor = make_executor("processes", 1)
    with Campaign(store, executor) as campaign:
        campaign.prepare(plan.missing)
        for job in plan.jobs(store):
            began = time.monotonic()
            campaign.run([job])
            record = store.get(job.cells[0].identity)
            assert record is not None
            assert record.status == "ok", record.reason
            found.append(time.monotonic() - began - record.wall_s)
    return found[1:]


def cpu_s(folder: Path, method: str, devices: tuple[str, ...]) -> float:
    """CPU seconds of this process for runs in it; all must share one training."""
    before = psutil.Process().cpu_times()
    found = records(folder, method, devices, "inline")
    after = psutil.Process().cpu_times()
    assert len(found) == len(devices)
    assert {record.status for record in found} == {"ok"}
    print(f"  {len(devices)} devices, {len({record.run for record in found})} trainings")
    return after.user + after.system - before.user - before.system


def main(folder: Path, method: str = "tent") -> None:
    """Print all of it."""
    times = start_up(folder / "start")
    print(f"start-up: {statistics.median(times):.2f} s, median of {[round(t, 2) for t in times]}")
    records(folder / "warm", method, DEVICES[:1], "inline")
    one, four = [], []
    for _ in range(REPEATS):
        one.append(cpu_s(folder / "one", method, DEVICES[:1]))
        four.append(cpu_s(folder / "four", method, DEVICES))
    ratio = statistics.median(four) / statistics.median(one)
    print(f"{method}: one device {one}, four {four}: {ratio:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
