"""Runs as tasks of job arrays in the queue of a Slurm cluster, whose nodes share the store.

What the queue holds goes on without the command that submitted it: tasks claim their cells
themselves, and the same command waits for what an earlier one has submitted.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cluster import slurm_queue as queue
from bench.cluster.batch import (
    Batch,
    Task,
    alike,
    grouped,
    making,
    time_limit,
)
from bench.cluster.batch_executor import BatchExecutor, Submitted
from bench.cluster.settling import OF_RUNS, settle
from bench.errors import BenchError
from bench.execute.base import Ended, Limits
from bench.execute.claims import Claims, seen_claims
from bench.execute.preparation import Preparation, PreparationListener, in_stages
from bench.execute.work import read_order
from bench.records.store import Store
from bench.registry import register
from bench.study.job import Job

POLL_S = (0.5, 15.0)
"""Seconds between two looks at the queue: at first, and when nothing happens for long."""
LOST_S = 120.0
"""How long a task may be in no list of the queue before it counts as lost."""
CANCEL_S = 60.0
"""How long tasks that are cancelled may take to record it."""
PREPARING_MINUTES = 24 * 60


@dataclass
class _Queued(Submitted):
    """A task in the queue, as part of a ``job``; ``unlisted``: since when no list has it."""

    job: int = 0
    unlisted: float | None = None


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
class SlurmExecutor(BatchExecutor):
    """Job arrays of a Slurm cluster; needs its commands here, and a shared folder for the store.

    All runs are queued at once, of which ``workers`` of an array may run at a time.
    """

    refused = ("--ray-address", "--image")

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(workers, queue.largest_array(), limits)
        self._tasks: dict[str, _Queued] = {}  # by their names
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

    @classmethod
    def told(cls, tickets: Sequence[str], within_s: float) -> dict[str, str] | None:
        """By ``squeue`` and ``sacct``; another cluster's tasks are not told of."""
        of = {ticket.partition(":")[2]: ticket for ticket in tickets}
        found = queue.states(of, within_s)
        if found is None:
            return None
        here = queue.cluster()
        return {
            ticket: found.get(name, "nothing of it")
            for name, ticket in of.items()
            if ticket.partition(":")[0] == here
        }

    def hold(self, claims: Claims) -> None:
        """Also settles what commands that were killed left."""
        _record_ended(claims.store, self.registered_name)
        super().hold(claims)

    def dry_run(self, jobs: Sequence[Job], preparations: Sequence[Preparation]) -> list[str]:
        arrays = []
        if jobs:
            store = Path(jobs[0].store)
            for stage in in_stages(preparations):
                arrays += self._preparing(stage, store / "logs")
            arrays += self._arrays(jobs)
        return [shlex.join(["sbatch", *array.arguments()]) for array in arrays]

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        """Submit a job for each; runs are submitted after them, and wait for them in the queue."""
        self._listener = listener
        for stage in in_stages(preparations):
            after = []
            for array in self._preparing(stage, logs):
                for each in array.preparing:
                    listener.preparation_begins(each)
                    (logs / f"{each.kind}-{each.name}.log").unlink(missing_ok=True)
                job = self._submit(array)
                kind = "afterok" if stage[0].kind == "source" else "afterany"
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
        tasks = [task for task in self._tasks.values() if task.content.jobs]
        self._tasks.clear()
        return [ended for task in tasks for ended in self._end(task, stopped) if ended.records]

    def close(self) -> None:
        """Cancel what is still in the queue."""
        if self._tasks:
            queue.cancel(self._names)
        super().close()

    # -----------------------------------------------------------------------

    def _submit_waiting(self) -> None:
        """Submit what waits; a queue that is full is asked again while it holds some of ours."""
        while self.waiting:
            array = self._arrays(list(self.waiting)[: self.workers])[0]
            taken = {job.run for task in array.batch.tasks for job in task.jobs}
            self._hand_over(array.batch)
            try:
                self._submit(array)
            except BenchError:
                if not any(task.content.jobs for task in self._tasks.values()):
                    raise
                return
            self.waiting = type(self.waiting)(j for j in self.waiting if j.run not in taken)

    def _submit(self, array: _Array) -> int:
        self._write(array.batch)
        job = queue.submit(array.arguments())
        for index in range(len(array.batch.tasks)):
            preparing = array.preparing[index] if array.preparing else None
            task = _Queued(array.batch, index, preparing, job=job)
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
            batch = self._made([Task(jobs=tuple(task)) for task in tasks], store, minutes)
            options = self._options(batch, store / "logs", accelerator, threads)
            options += ["--exclusive"] if measured else []
            after = ",".join(self._after)
            options += [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
            arrays.append(_Array(batch, options))
        return arrays

    def _preparing(self, preparations: Sequence[Preparation], logs: Path) -> list[_Array]:
        tasks, threads = making(preparations, logs)
        minutes = self._resources.minutes or PREPARING_MINUTES
        batch = self._made(tasks, logs.parent.resolve(), minutes)
        accelerator = preparations[0].cell.accelerator
        options = self._options(batch, logs.resolve(), accelerator, threads)
        after = ",".join(self._after)
        options += [f"--dependency={after}", "--kill-on-invalid-dep=yes"] if after else []
        return [_Array(batch, options, list(preparations))]

    def _made(self, tasks: Sequence[Task], store: Path, minutes: int) -> Batch:
        return self._batch(store, tasks, queue.cluster(), minutes, self.limits.memory_bytes)

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
            task.advance(self._listener)
            if listed is None or name in listed:
                task.unlisted = None
                continue
            if task.job not in finals:
                finals[task.job] = queue.final_states(task.job)
            final = finals[task.job].get(task.index)
            if final is None:
                task.unlisted = task.unlisted or time.monotonic()
                if task.preparing is None and not task.left.open:
                    # All its cells have records: nothing more is to be known of it.
                    final = queue.Final("COMPLETED")
                elif time.monotonic() - task.unlisted < LOST_S:
                    continue
            del self._tasks[name]
            ended += self._end(task, final or queue.Final("LOST"))
        return ended


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
        task = Submitted(read_order(path, Batch), int(index))
        for _ in settle(task.left, final, Counter(), task.log):
            pass  # what had not begun is run again
