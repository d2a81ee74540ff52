"""A batch: what the tasks of one job array do, in a file that they read."""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic

from bench import registry
from bench.costs.device_profile import load_device
from bench.errors import BenchError
from bench.execute.base import Limits
from bench.execute.preparation import Preparation
from bench.io.atomic_write import write_atomically
from bench.records.cell import Cell
from bench.records.store import Store
from bench.run.source_model import THREADS
from bench.study.job import Job

SHORT_S = 600.0
"""Short runs are put into one task up to so many seconds: a task costs a queue some of its own."""
MOST_JOBS = 50
"""Most runs in a task."""
KEPT_S = 30 * 24 * 3600.0
"""Age of a batch that no queue holds any more."""
FACTOR, MORE_S, LEAST_MINUTES, UNKNOWN_MINUTES = 3.0, 600.0, 15, 120
"""A task's time limit is the estimate by this factor and more; what it is without an estimate."""


class Task(pydantic.BaseModel, extra="forbid", frozen=True):
    """One task: runs one after another, or ``work`` that makes what runs share.

    ``log``: of ``work``'s output.
    """

    jobs: tuple[Job, ...] = ()
    work: dict[str, Any] | None = None
    log: str = ""


class Batch(pydantic.BaseModel, extra="forbid", frozen=True):
    """The tasks of an array.

    ``name`` of the job in the queue; ``token``: of the submitting command's claims; ``executor``
    and ``cluster``: what tickets begin with, empty where tasks claim by themselves; ``minutes``:
    time limit of a task; ``timeout_s``, ``memory_bytes``: the user's limits of a run.
    """

    name: str
    store: str
    token: str
    executor: str
    cluster: str
    minutes: int
    timeout_s: float | None = None
    memory_bytes: float | None = None
    tasks: tuple[Task, ...]

    @property
    def path(self) -> Path:
        """Where it is written."""
        return Path(self.store) / "batches" / f"{self.name}.json"

    @property
    def limits(self) -> Limits:
        """Those of a run."""
        return Limits(self.timeout_s, self.memory_bytes)

    def ticket(self, index: int) -> str:
        """What claims call a task; empty if no command has claimed its cells."""
        return f"{self.executor}:{self.cluster}:{self.name}_{index}" if self.executor else ""

    def write(self) -> None:
        """Write it; BenchError if that is impossible."""
        try:
            write_atomically(self.path, self.model_dump_json().encode())
        except OSError as error:
            raise BenchError(
                f"batch {self.path}: cannot be written: {error.strerror or error}; free space or "
                "choose another --store"
            ) from error


def new_name() -> str:
    """A name for a job in the queue that no other has."""
    return f"bench-{uuid.uuid4().hex[:12]}"


def remove_batches(store: Store, names: Sequence[str]) -> None:
    """Remove batches that have ended."""
    for name in names:
        (store.root / "batches" / f"{name}.json").unlink(missing_ok=True)


def remove_stale_batches(store: Store) -> None:
    """Remove batches that are as old as what no queue keeps."""
    with suppress(OSError):
        for path in (store.root / "batches").glob("bench-*.json"):
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()


def alike(jobs: Sequence[Job]) -> dict[tuple[str, int, bool], list[Job]]:
    """Jobs that ask a queue for the same: by accelerator, threads, and whether costs are measured,
    for which a node runs nothing else.
    """
    found: dict[tuple[str, int, bool], list[Job]] = defaultdict(list)
    for job in jobs:
        measured = any(load_device(cell.device).cost == "measured" for cell in job.cells)
        found[(job.cells[0].accelerator, job.cells[0].threads, measured)].append(job)
    return dict(found)


def making(preparations: Sequence[Preparation], logs: Path) -> tuple[list[Task], int]:
    """Tasks that make what runs share, and the threads that each takes."""
    plugins = [str(path) for path in registry.plugins()]
    tasks = []
    for each in preparations:
        cell = each.cell.model_dump(mode="json")
        log = logs.resolve() / f"{each.kind}-{each.name}.log"
        work = {"do": each.kind, "cell": cell, "plugins": plugins}
        tasks.append(Task(work=work, log=str(log)))
    least = THREADS if preparations[0].kind == "source" else 1
    return tasks, max(least, *(each.cell.threads for each in preparations))


def grouped(
    jobs: Sequence[Job],
    seconds: Callable[[Cell], float | None],
    minutes: int | None,
    most: int = MOST_JOBS,
) -> list[list[Job]]:
    """Jobs in tasks: those that are known to be short together, the others alone.

    ``minutes``: the time limit of a task, if it is given: half of it is filled; ``most``: jobs in a
    task.
    """
    full = SHORT_S if minutes is None else min(SHORT_S, minutes * 30.0)
    tasks: list[list[Job]] = []
    filled = full
    for job in jobs:
        expected = seconds(job.cells[0])
        needed = full if expected is None else expected
        if filled + needed > full or len(tasks[-1]) >= most:
            tasks.append([])
            filled = 0.0
        tasks[-1].append(job)
        filled += needed
    return tasks


def time_limit(
    tasks: Sequence[Sequence[Job]],
    seconds: Callable[[Cell], float | None],
    timeout_s: float | None,
) -> int:
    """Minutes that each of the tasks may take."""
    if timeout_s is not None:
        return max(int((max(map(len, tasks)) * timeout_s + MORE_S) / 60) + 1, 1)
    longest = 0.0
    for task in tasks:
        known = [seconds(job.cells[0]) for job in task]
        if None in known:
            return UNKNOWN_MINUTES
        longest = max(longest, sum(each for each in known if each is not None))
    return max(int((FACTOR * longest + MORE_S) / 60) + 1, LEAST_MINUTES)
