"""What executors share: they take jobs, run each to a record, and tell when one ends."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.records.cell import Cell
from bench.records.record import Record, Status
from bench.records.store import Store
from bench.run.recording import make_record, now
from bench.study.job import Job


@dataclass(frozen=True)
class Ended:
    """One job ended: its records, and the cells that need a run of their own."""

    job: Job
    records: list[Record]
    deferred: list[Cell]


class Executor(ABC):
    """Runs jobs, each to its end, whatever way it ends.

    ``on_end`` is called in this process with every ended job; it returns further jobs
    (those of deferred cells).
    """

    on_end: Callable[[Ended], Iterable[Job]]

    @abstractmethod
    def run(self, jobs: Iterable[Job]) -> None:
        """Run all jobs.

        A KeyboardInterrupt stops the running jobs, leaves ``interrupted`` records of
        them and goes on to the caller.
        """

    def close(self) -> None:
        """Release what the executor holds."""


def collect(job: Job, started: str, seconds: float, status: Status, reason: str) -> Ended:
    """Read what a job left, and write ``status`` for cells it should have settled but did not.

    With status ``ok`` (a clean end) a cell without a record was deferred; if no cell has one, the
    job did nothing and all its cells are recorded as failed.
    """
    store = Store(job.store)
    records: list[Record] = []
    open_cells: list[Cell] = []
    for cell in job.cells:
        record = store.get(cell.identity)
        # An ok record of another command on the same store settles a cell as well.
        if record is not None and (record.run == job.run or record.status == "ok"):
            records.append(record)
        else:
            open_cells.append(cell)
    if status == "ok" and records:
        return Ended(job, records, open_cells)
    if status == "ok":
        status, reason = "failed", "the run ended without a record; see its log"
    for cell in open_cells:
        on = "host" if status == "oom" else None
        record = make_record(
            job, cell, status=status, reason=reason, started=started, wall_s=seconds, oom_on=on
        )
        store.write(record)
        records.append(record)
    return Ended(job, records, [])


class Stopwatch:
    """Start time as text and the seconds since."""

    def __init__(self) -> None:
        self.started = now()
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start
