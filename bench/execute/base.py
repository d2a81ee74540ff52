"""What executors share: they take jobs, run each to a record, and tell which have ended."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from bench.accelerator.choice import Choice
from bench.errors import BenchError, Unsupported
from bench.execute.claims import Claims
from bench.execute.preparation import Preparation, PreparationListener
from bench.execute.work import prepare
from bench.io.atomic_write import write_atomically
from bench.io.progress import listening
from bench.io.weights_cache import read_cached
from bench.records.cell import Cell
from bench.records.record import Record, Status
from bench.records.store import Store
from bench.run.results import ending, make_record, now
from bench.study.job import Job
from bench.study.resources import Resources


@dataclass(frozen=True)
class Limits:
    """What each run may take; None is no limit of the user's.

    Attributes
    ----------
    timeout_s : seconds until a run is ended, and recorded as ``timeout``
    memory_bytes : resident memory, with that of its children (what they share counts once), above
        which a run is ended, and recorded as ``oom`` on the host
    """

    timeout_s: float | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True)
class Ended:
    """One job ended: its records, and the cells that need a run of their own.

    ``left``: files that the run left in shared memory.
    """

    job: Job
    records: list[Record]
    deferred: list[Cell]
    left: tuple[str, ...] = ()


class Executor(ABC):
    """Runs jobs, each to its end, whatever way it ends. Register it as ``"executor"``.

    The store is the truth: a job is the command of `job_command` on any machine that has the
    store's folder, and `collect` reads what it left there.

    Attributes
    ----------
    workers : runs at a time
    limits : what each run may take; BenchError for a limit that this executor cannot enforce
    enforces : the fields of `Limits` that it can enforce
    in_process : runs see the classes of this process, those registered in a notebook too
    registered_name : the name it was registered by; `register` sets it
    elsewhere : runs compute on other machines, whose GPUs and cores this one does not have
    waiting : jobs that were submitted and do not run yet
    computing : where runs compute, see `compute_on`
    """

    enforces: ClassVar[tuple[str, ...]] = ()
    in_process: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = False
    registered_name: ClassVar[str] = ""

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        self.workers = workers
        self.limits = limits or Limits()
        self.waiting: deque[Job] = deque()
        self.computing = Choice()
        for name, option in (("timeout_s", "--timeout"), ("memory_bytes", "--memory-limit")):
            if getattr(self.limits, name) is not None and name not in self.enforces:
                raise BenchError(
                    f"executor {self.registered_name or type(self).__name__!r}: cannot "
                    f"enforce {option}; leave it out, or take executor 'processes'"
                )

    def compute_on(self, choice: Choice) -> None:
        """Let runs that compute with CUDA have these GPUs; called before the first is submitted."""
        self.computing = choice

    @classmethod
    def default_workers(cls, threads: int) -> int:
        """Runs at a time where the user names no number: as many as there are cores for."""
        return max(available_cores() // threads, 1)

    @classmethod
    def knows(cls, ticket: str) -> bool | None:
        """Whether a task waits or runs in this executor's queue; None if it has none to ask."""
        return None

    @classmethod
    def told(cls, tickets: Sequence[str], within_s: float) -> dict[str, str] | None:
        """What a queue, if there is one, says of tasks, by ticket; None if it does not answer."""
        return {}

    def use_resources(self, resources: Resources, given: Sequence[str] = ()) -> None:
        """What each task in a queue asks for; ``given``: the options by which the user said so.

        BenchError for an option where there is no queue.
        """
        if given:
            raise BenchError(
                f"{given[0]}: executor {self.registered_name!r} has no queue to ask; leave it out, "
                "or take executor 'slurm', 'ray' or 'k8s'"
            )

    def expect(self, seconds: Callable[[Cell], float | None]) -> None:
        """How long runs take, where that is known; only a queue asks."""

    def hold(self, claims: Claims) -> None:
        """The claims of the campaign, to hand some over to tasks of a queue."""

    def dry_run(self, jobs: Sequence[Job], preparations: Sequence[Preparation]) -> list[str]:
        """What would be submitted, a command a line; BenchError where nothing is."""
        raise BenchError(
            f"--dry-run: executor {self.registered_name!r} submits nothing to a queue; "
            "'bench plan' shows what would run"
        )

    def submit(self, job: Job) -> None:
        """Take a job, by default into ``waiting``; it runs as soon as there is room."""
        self.waiting.append(job)

    @abstractmethod
    def wait(self) -> list[Ended]:
        """Let jobs run; those that have ended since the last call, after a while perhaps none."""

    def cancel(self) -> list[Ended]:
        """Stop the jobs that run and forget those that wait.

        Returns the stopped ones, recorded as ``interrupted``.
        """
        self.waiting.clear()
        return []

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        """Make and cache what runs share, by default in this process, one after another.

        Where it is made elsewhere this may return before all is; the runs that need it wait for it.

        Parameters
        ----------
        preparations : source models first; the others need their ``source``, if it is one of these
        logs : folder for the output of other processes
        listener : receives the events of each, also of what fails or does not apply besides
            source models; the runs that need it say why

        Raises
        ------
        BenchError
            if a source model fails; so does `wait`
        """
        for each in preparations:
            listener.preparation_begins(each)
            error = ""
            try:
                with listening(partial(listener.preparation_advances, each)):
                    prepare(each.kind, each.cell)
            except Unsupported as reason:
                if each.kind != "source":
                    listener.preparation_does_not_apply(each, str(reason))
                    continue
                error = str(reason)
            except Exception as problem:
                error = ending(problem)["reason"]
            listener.preparation_ends(each, error)
            require_source(each, error)

    def close(self) -> None:
        """Release what the executor holds, and end whatever still runs."""


def require_source(preparation: Preparation, error: str, log: Path | None = None) -> None:
    """Raise BenchError if a source model could not be made: no run is possible without it."""
    if preparation.kind != "source":
        return
    if not error and read_cached(preparation.path) is None:
        error = "the process ended before the weights were cached"
    if error:
        where = "" if log is None else f" (log: {log})"
        raise BenchError(f"{preparation.title}: failed: {error}{where}")


def job_command(job: Job) -> list[str]:
    """The command that runs a job, which is written to a file beside its log for that."""
    file = job.log.with_suffix(".json")
    write_atomically(file, job.model_dump_json().encode())
    return [sys.executable, "-P", "-m", "bench.execute.work", str(file)]


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def collect(job: Job, started: str, seconds: float, status: Status, reason: str) -> Ended:
    """Read what a job left, and write ``status`` for cells it should have settled but did not.

    With status ``ok`` (a clean end) a cell without a record was deferred; if no cell has one, the
    job did nothing and all its cells are recorded as failed.
    """
    store = Store(job.store)
    found = {cell.identity: store.get(cell.identity) for cell in job.cells}
    # An ok record of another command on the same store settles a cell as well.
    settled = {i: r for i, r in found.items() if r and (r.run == job.run or r.status == "ok")}
    records = list(settled.values())
    open_cells = [cell for cell in job.cells if cell.identity not in settled]
    if status == "ok" and records:
        return Ended(job, records, open_cells)
    if status == "ok":
        status, reason = "failed", "the run ended without a record; see its log"
    facts = {"reason": reason, "oom_on": "host" if status == "oom" else None}
    for cell in open_cells:
        record = make_record(job, cell, status=status, started=started, wall_s=seconds, **facts)
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
