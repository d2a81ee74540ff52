"""What the executors share that put runs into batches, for a queue or for Ray.

A task's result is what it leaves in the store; what its end means for its cells says
`bench.cluster.settling`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.cluster.batch import Batch, Task, new_name, remove_batches, remove_stale_batches
from bench.cluster.settling import Begun, settle, tell_made
from bench.cluster.slurm_queue import Final
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits
from bench.execute.claims import Claims
from bench.execute.preparation import Preparation, PreparationListener, tell_advance
from bench.records.cell import Cell
from bench.study.resources import Resources


@dataclass
class Submitted:
    """A task of a batch.

    ``preparing``: what it makes, where it is no run, with the position up to which its log was read
    and why it does not apply.
    """

    batch: Batch
    index: int
    preparing: Preparation | None = None
    position: int = 0
    refused: str = ""

    @property
    def name(self) -> str:
        """In the queue."""
        return f"{self.batch.name}_{self.index}"

    @property
    def content(self) -> Task:
        """What it does."""
        return self.batch.tasks[self.index]

    @property
    def log(self) -> Path:
        """Of its output, but for that of what it makes."""
        return Path(self.batch.store) / "logs" / f"{self.name}.log"

    @property
    def left(self) -> Begun:
        """What it has left of its cells."""
        return Begun(self.batch.ticket(self.index), self.content.jobs)

    def advance(self, listener: PreparationListener) -> None:
        """Tell how far that is which it makes."""
        if self.preparing is not None:
            log = Path(self.content.log)
            self.position, why = tell_advance(self.preparing, log, self.position, listener)
            self.refused = self.refused or why


class BatchExecutor(Executor):
    """Writes batches, and settles what their tasks leave.

    ``refused``: options of other queues. ``cluster``: what tickets begin with.
    """

    enforces = ("timeout_s", "memory_bytes")
    elsewhere: ClassVar[bool] = True
    refused: ClassVar[tuple[str, ...]]

    def __init__(self, workers: int, most: int, limits: Limits | None) -> None:
        super().__init__(max(workers, most), limits)
        self._at_a_time = workers
        self._resources = Resources()
        self._seconds: Callable[[Cell], float | None] = lambda _: None
        self._claims: Claims | None = None
        self._names: list[str] = []
        self._tries: Counter[str] = Counter()  # by cell
        self._listener = PreparationListener()

    def use_resources(self, resources: Resources, given: Sequence[str] = ()) -> None:
        for option in self.refused:
            if option in given:
                raise BenchError(
                    f"{option}: executor {self.registered_name!r} knows no such thing; leave it out"
                )
        self._resources = resources

    def expect(self, seconds: Callable[[Cell], float | None]) -> None:
        self._seconds = seconds

    def hold(self, claims: Claims) -> None:
        """Also removes batches of long ago."""
        self._claims = claims
        remove_stale_batches(claims.store)

    def close(self) -> None:
        """Remove the batches, which have ended."""
        names, self._names = self._names, []
        if self._claims is not None and names:
            remove_batches(self._claims.store, names)

    def _batch(
        self,
        store: Path,
        tasks: Sequence[Task],
        cluster: str,
        minutes: int,
        memory_bytes: float | None,
    ) -> Batch:
        return Batch(
            name=new_name(),
            store=str(store),
            token="" if self._claims is None else self._claims.token,
            executor=self.registered_name,
            cluster=cluster,
            minutes=minutes,
            timeout_s=self.limits.timeout_s,
            memory_bytes=memory_bytes,
            tasks=tuple(tasks),
        )

    def _write(self, batch: Batch) -> None:
        batch.write()
        self._names.append(batch.name)  # also if this process ends before the queue answers

    def _hand_over(self, batch: Batch) -> None:
        """Leave its cells to its tasks."""
        assert self._claims is not None
        self._claims.hand_over(
            (batch.ticket(index), [cell for job in task.jobs for cell in job.cells])
            for index, task in enumerate(batch.tasks)
        )

    def _end(self, task: Submitted, final: Final) -> list[Ended]:
        """A task has ended: its jobs, settled; BenchError if it made a source model, and failed."""
        if task.preparing is None:
            return list(settle(task.left, final, self._tries, task.log))
        task.advance(self._listener)
        log = Path(task.content.log)
        tell_made(task.preparing, final, task.refused, log, self._listener)
        return []
