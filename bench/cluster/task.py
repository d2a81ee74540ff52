"""What a task of a job array does: ``python -m bench.cluster.task BATCH.json [INDEX [PARENT]]``.

``INDEX``: by default what Slurm or Kubernetes has put into the environment; ``PARENT``: the process
that starts it, where it is to end with that.

Its runs happen one after another, each in a process of its own with this task's limits, as executor
``processes`` has them. A cell that meanwhile belongs to another command is left to that. Exit code:
0 it came to its end, whatever records say; 1 what runs share could not be made; 2 no batch.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from bench.accelerator.choice import choose
from bench.cluster.batch import Batch, Task
from bench.errors import BenchError
from bench.execute.base import Limits
from bench.execute.campaign import Campaign, make_executor
from bench.execute.claims import Claims
from bench.execute.fork_server import SET_PDEATHSIG, prctl
from bench.execute.work import IDLE_THREADS, do, read_order
from bench.records.store import Store
from bench.registry import add_plugin

INDICES = ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX")
MARGIN_S = 30.0
"""Seconds before a task's time limit at which its run is ended and recorded."""
SHARE = 0.9
"""Of a task's memory that a run may take: beyond all of it the queue ends the task."""


def run_task(batch: Batch, index: int) -> None:
    """Run the task's jobs to records. KeyboardInterrupt once what ran is recorded as stopped."""
    began = time.monotonic()
    task = batch.tasks[index]
    if task.work is not None:
        _make(task)
        return
    for plugin in task.jobs[0].plugins:
        add_plugin(plugin)
    store = Store(batch.store)
    cell = task.jobs[0].cells[0]
    limits = replace(batch.limits, memory_bytes=_memory_limit(batch.limits))
    executor = make_executor("processes", 1, limits, choose(cell.accelerator))
    full = batch.minutes * 60.0 - min(MARGIN_S, batch.minutes * 6.0)
    claims = Claims(store, batch.token, batch.ticket(index))
    with Campaign(store, executor, claims=claims) as campaign:
        for number, job in enumerate(task.jobs):
            left = full - (time.monotonic() - began)
            if number and left < full / 2:
                print(f"the time is over for {len(task.jobs) - number} runs; they are queued again")
                break
            executor.limits = Limits(min(left, limits.timeout_s or left), limits.memory_bytes)
            campaign.run([job])


def _make(task: Task) -> None:
    """Make what runs share; its output goes to its log."""
    assert task.work is not None
    with open(task.log, "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    do(task.work)


def _memory_limit(limits: Limits) -> float | None:
    given = os.environ.get("SLURM_MEM_PER_NODE", "")
    if not given.isdecimal() or int(given) == 0:
        return limits.memory_bytes
    share = SHARE * int(given) * 2**20
    return min(share, limits.memory_bytes or share)


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the queue sends it to every process, and again
    raise KeyboardInterrupt


def main(arguments: list[str]) -> None:
    """Run the task that is named."""
    if not 1 <= len(arguments) <= 3:
        raise BenchError("usage: python -m bench.cluster.task BATCH.json [INDEX [PARENT]]")
    if arguments[2:]:
        prctl(SET_PDEATHSIG, signal.SIGKILL)
        if str(os.getppid()) != arguments[2]:
            raise BenchError(f"process {arguments[2]}, which began this task, has ended")
    given = (os.environ[name] for name in INDICES if name in os.environ)
    index = arguments[1] if arguments[1:] else next(given, "")
    batch = read_order(Path(arguments[0]), Batch)
    if not index.isdecimal() or int(index) >= len(batch.tasks):
        raise BenchError(f"task {index!r}: {arguments[0]} has tasks 0 to {len(batch.tasks) - 1}")
    signal.signal(signal.SIGTERM, _stop)
    run_task(batch, int(index))


if __name__ == "__main__":
    for name, value in IDLE_THREADS.items():
        os.environ.setdefault(name, value)  # read when torch is imported
    try:
        main(sys.argv[1:])
    except BenchError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
