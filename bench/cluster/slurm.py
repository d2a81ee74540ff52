"""Runs as tasks of job arrays in the queue of a Slurm cluster, whose nodes share the store.

What the queue holds goes on without the command that submitted it: tasks claim their cells
themselves, and the same command waits for what an earlier one has submitted.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.cluster import slurm_queue as queue
from bench.cluster.batch import (
    Batch,
    Task,
    alike,
    grouped,
    making,
    new_name,
    remove_batches,
    remove_stale_batches,
    time_limit,
)
from bench.cluster.settling import OF_RUNS, Begun, settle, tell_made
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits
from bench.execute.claims import Claims, seen_claims
from bench.execute.preparation import Preparation, PreparationListener, tell_advance
from bench.execute.work import read_order
from bench.records.cell import Cell
from bench.records.store import Store
from bench.registry import register
from bench.study.job import Job
from bench.study.resources import Resources

POLL_S = (0.5, 15.0)
"""Seconds between two looks at the queue: at first, and when nothing happens for long."""
LOST_S = 120.0
"""How long a task may be in no list of the queue before it counts as lost."""
CANCEL_S = 60.0
"""How long tasks that are cancelled may take to record it."""
PREPARING_MINUTES = 24 * 60


@dataclass
class _Queued:
    """A task in the queue.

    ``preparing``: what it makes, with the position up to which its log was read and why it does not
    apply; ``unlisted``: since when no list has it.
    """

    batch: Batch
    index: int
    job: int
    preparing: Preparation | None = None
    position: int = 0
    refused: str = ""
    unlisted: float | None = None

    @property
    def name(self) -> str:
        return f"{self.batch.name}_{self.index}"

    @property
    def task(self) -> Task:
        return self.batch.tasks[self.index]

    @property
    def ticket(self) -> str:
        return self.batch.ticket(self.index)


@dataclass
class _Array:
    """What one ``sbatch`` submits: a batch, and the options of the job."""

    batch: Batch
    options: list[str]
    preparing: list[Preparation] = field(default_factory=list)

    def arguments(self) -> list[str]:
        """Of ``sbatch``."""
        python = [sys.executable, "-P", "-m", "bench.cluster.task", str(self.batch.path)]
        return [*self.options, f"--wrap=exec {shlex.join(python)}"]


@register("executor", "slurm")
class SlurmExecutor(Executor):
    """Job arrays of a Slurm cluster; needs its commands here, and a shared folder for the store.

    All runs are queued at once, of which ``workers`` of an array may run at a time.
    """

    enforces = ("timeout_s", "memory_bytes")
    elsewhere: ClassVar[bool] = True

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(max(workers, queue.largest_array()), limits)
        self._at_a_time = workers
        self._resources = Resources()
        self._seconds: Callable[[Cell], float | None] = lambda _: None
        self._claims: Claims | None = None
        self._tasks: dict[str, _Queued] = {}  # by their names
        self._names: list[str] = []
        self._tries: Counter[str] = Counter()  # by cell
        self._listener = PreparationListener()
        self._after: list[str] = []
        self._pause = POLL_S[0]

    @classmethod
    def default_workers(cls, threads: int) -> int:
        """As many as an array may have."""
        return queue.largest_array()

    @classmethod
    def knows(cls, ticket: str) -> bool | None:
        """A ticket is CLUSTER:NAME_INDEX; another cluster's queue cannot be asked from here."""
        cluster, _, name = ticket.partition(":")
        if cluster != queue.cluster():
            return None
        found = queue.look()
        return None if found is None else name in found

    def use_resources(self, resources: Resources, given: Sequence[str] = ()) -> None:
        for option in {"--ray-address", "--image"}.intersection(given):
            raise BenchError(f"{option}: executor 'slurm' knows no such thing; leave it out")
        self._resources = resources

    def expect(self, seconds: Callable[[Cell], float | None]) -> None:
        self._seconds = seconds

    def hold(self, claims: Claims) -> None:
        """Also settles what commands that were killed left, and removes batches of long ago."""
        self._claims = claims
        _record_ended(claims.store, self.registered_name)
        remove_stale_batches(claims.store)

    def dry_run(self, jobs: Sequence[Job], preparations: Sequence[Preparation]) -> list[str]:
        arrays = []
        if jobs:
            store = Path(jobs[0].store)
            for kind in ("source", "ahead"):
                chosen = [each for each in preparations if each.kind == kind]
                arrays += self._preparing(chosen, store / "logs") if chosen else []
            arrays += self._arrays(jobs)
        return [shlex.join(["sbatch", *array.arguments()]) for array in arrays]

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        """Submit a job for each; runs are submitted after them, and wait for them in the queue."""
        self._listener = listener
        after = []
        for array in self._preparing(preparations, logs) if preparations else []:
            for each in array.preparing:
                listener.preparation_begins(each)
                (logs / f"{each.kind}-{each.name}.log").unlink(missing_ok=True)
            job = self._submit(array)
            kind = "afterok" if array.preparing[0].kind == "source" else "afterany"
            after.append(f"{kind}:{job}")
        self._after += after

    def wait(self) -> list[Ended]:
        self._submit_waiting()
        time.sleep(self._pause)
        ended = self._look()
        first, last = POLL_S
        self._pause = first if ended else min(self._pause * 1.3, last)
        return ended

    def cancel(self) -> list[Ended]:
        """Take all out of the queue; what runs there records that it was stopped."""
        super().cancel()
        queue.cancel(self._names)
        until = time.monotonic() + CANCEL_S
        while queue.waiting(self._names) and time.monotonic() < until:
            time.sleep(POLL_S[0])
        stopped = queue.Final("CANCELLED")
        tasks = [task for task in self._tasks.values() if task.task.jobs]
        self._tasks.clear()
        return [ended for task in tasks for ended in self._settle(task, stopped) if ended.records]

    def close(self) -> None:
        """Cancel what is still in the queue."""
        if self._tasks:
            queue.cancel(self._names)
        names, self._names = self._names, []
        if self._claims is not None and names:
            remove_batches(self._claims.store, names)

    # -----------------------------------------------------------------------

    def _submit_waiting(self) -> None:
        """Submit what waits; a queue that is full is asked again while it holds some of ours."""
        while self.waiting:
            array = self._arrays(list(self.waiting)[: self.workers])[0]
            taken = {job.run for task in array.batch.tasks for job in task.jobs}
            tickets = (array.batch.ticket(i) for i in range(len(array.batch.tasks)))
            cells = ([c for job in task.jobs for c in job.cells] for task in array.batch.tasks)
            assert self._claims is not None
            self._claims.hand_over(zip(tickets, cells, strict=True))
            try:
                self._submit(array)
            except BenchError:
                if not any(task.task.jobs for task in self._tasks.values()):
                    raise
                return
            self.waiting = type(self.waiting)(j for j in self.waiting if j.run not in taken)

    def _submit(self, array: _Array) -> int:
        array.batch.write()
        self._names.append(array.batch.name)  # also if this process ends before the answer
        job = queue.submit(array.arguments())
        for index in range(len(array.batch.tasks)):
            preparing = array.preparing[index] if array.preparing else None
            task = _Queued(array.batch, index, job, preparing)
            self._tasks[task.name] = task
        self._pause = POLL_S[0]
        return job

    def _arrays(self, jobs: Sequence[Job]) -> list[_Array]:
        """One array for all jobs that ask for the same."""
        arrays = []
        for (accelerator, threads, measured), group in alike(jobs).items():
            tasks = grouped(group, self._seconds, self._resources.minutes)
            minutes = self._resources.minutes or time_limit(
                tasks, self._seconds, self.limits.timeout_s
            )
            store = Path(group[0].store)
            batch = self._batch(store, minutes, [Task(jobs=tuple(task)) for task in tasks])
            options = self._options(batch, store / "logs", accelerator, threads)
            options += ["--exclusive"] if measured else []
            after = ",".join(self._after)
            options += [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
            arrays.append(_Array(batch, options))
        return arrays

    def _preparing(self, preparations: Sequence[Preparation], logs: Path) -> list[_Array]:
        tasks, threads = making(preparations, logs)
        minutes = self._resources.minutes or PREPARING_MINUTES
        batch = self._batch(logs.parent.resolve(), minutes, tasks)
        accelerator = preparations[0].cell.accelerator
        options = self._options(batch, logs.resolve(), accelerator, threads)
        after = ",".join(self._after)
        options += [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
        return [_Array(batch, options, list(preparations))]

    def _batch(self, store: Path, minutes: int, tasks: Sequence[Task]) -> Batch:
        return Batch(
            name=new_name(),
            store=str(store),
            token="" if self._claims is None else self._claims.token,
            executor=self.registered_name,
            cluster=queue.cluster(),
            minutes=minutes,
            timeout_s=self.limits.timeout_s,
            memory_bytes=self.limits.memory_bytes,
            tasks=tuple(tasks),
        )

    def _options(self, batch: Batch, logs: Path, accelerator: str, threads: int) -> list[str]:
        asked = self._resources
        gpus = asked.gpus if asked.gpus is not None else int(accelerator == "cuda")
        options = [
            f"--job-name={batch.name}",
            f"--array=0-{len(batch.tasks) - 1}%{self._at_a_time}",
            f"--output={logs}/{batch.name}_%a.log",
            f"--time={batch.minutes}",
            "--ntasks=1",
            f"--cpus-per-task={threads}",
            "--no-requeue",  # what is run again, and how often, is for the store
        ]
        options += [f"--partition={asked.partition}"] if asked.partition else []
        options += [f"--gres=gpu:{gpus}"] if gpus else []
        options += [f"--mem={asked.mem}"] if asked.mem else []
        return [*options, *asked.sbatch]

    def _look(self) -> list[Ended]:
        """What has ended: tasks whose cells all have records, and those that the queue has lost."""
        listed = queue.waiting(self._names)
        finals: dict[int, dict[int, queue.Final]] = {}
        ended: list[Ended] = []
        for name, task in list(self._tasks.items()):
            if task.preparing is not None:
                task.position, why = tell_advance(
                    task.preparing, Path(task.task.log), task.position, self._listener
                )
                task.refused = task.refused or why
            if listed is None or name in listed:
                task.unlisted = None
                continue
            if task.job not in finals:
                finals[task.job] = queue.final_states(task.job)
            final = finals[task.job].get(task.index)
            if final is None:
                task.unlisted = task.unlisted or time.monotonic()
                if self._is_settled(task):
                    final = queue.Final("COMPLETED")
                elif time.monotonic() - task.unlisted < LOST_S:
                    continue
            del self._tasks[name]
            final = final or queue.Final("LOST")
            if task.preparing is None:
                ended += self._settle(task, final)
            else:
                log = Path(task.task.log)
                tell_made(task.preparing, final, task.refused, log, self._listener)
        return ended

    def _is_settled(self, task: _Queued) -> bool:
        """Whether all its cells have records: then nothing more is to be known of it."""
        begun = Begun(task.ticket, task.task.jobs)
        return task.preparing is None and not begun.open

    def _settle(self, task: _Queued, final: queue.Final) -> Iterable[Ended]:
        log = Path(task.batch.store) / "logs" / f"{task.name}.log"
        return settle(Begun(task.ticket, task.task.jobs), final, self._tries, log)


def _record_ended(store: Store, executor: str) -> None:
    """Record cells that the queue ended while no command was there to read why.

    Those are meant that ran out of time or memory: all others are just run again.
    """
    lost = {
        claim.ticket.removeprefix(f"{executor}:{queue.cluster()}:")
        for _, claim, state, _ in seen_claims(store)
        if state == "lost" and claim.ticket.startswith(f"{executor}:{queue.cluster()}:")
    }
    for name in sorted(lost):
        job, _, index = name.rpartition("_")
        path = store.root / "batches" / f"{job}.json"
        final = queue.ended_states(job).get(int(index)) if path.is_file() else None
        if final is None or final.state not in OF_RUNS:
            continue
        batch = read_order(path, Batch)
        left = Begun(batch.ticket(int(index)), batch.tasks[int(index)].jobs)
        for _ in settle(left, final, Counter(), store.logs / f"{name}.log"):
            pass  # what had not begun is run again
