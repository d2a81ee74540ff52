"""What becomes of cells whose task has left the queue: their records, or another run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.cluster.slurm_queue import Final
from bench.execute.base import Ended, require_source
from bench.execute.claims import folder, read_claim
from bench.execute.preparation import Preparation, PreparationListener
from bench.io.run_output import last_line
from bench.records.cell import Cell
from bench.records.record import Record, Status
from bench.records.store import Store
from bench.run.results import make_record, now
from bench.study.job import Job

RETRIES = 2
"""How often a command runs a cell again that was interrupted by no fault of its own."""
OF_NODES = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "LOST")
"""States that say nothing about what ran."""
OF_RUNS = ("OUT_OF_MEMORY", "TIMEOUT", "DEADLINE")
"""States that say what a run took."""


class Begun:
    """What a task left: records, and which of its cells it had begun with.

    ``settled``: records of its cells that were made since it was submitted, by cell; ``open``: its
    other cells; ``begun``: those of them that it ran when it ended.
    """

    def __init__(self, ticket: str, jobs: Sequence[Job]) -> None:
        self.jobs = jobs
        self.settled: dict[str, Record] = {}
        self.open: set[str] = set()
        self.begun: set[str] = set()
        store = Store(jobs[0].store) if jobs else None
        for job in jobs:
            assert store is not None
            for cell, earlier in zip(job.cells, job.attempts, strict=True):
                record = store.get(cell.identity)
                if record is not None and (record.status == "ok" or record.attempt > earlier):
                    self.settled[cell.identity] = record
                    continue
                self.open.add(cell.identity)
                claim = read_claim(folder(store) / f"{cell.identity}.json")
                if claim is not None and claim.ticket == ticket and claim.state == "running":
                    self.begun.add(cell.identity)


def settle(left: Begun, final: Final, tries: Counter[str], log: Path) -> Iterator[Ended]:
    """The task's jobs, ended: cells have the records that it left, or such as the queue's word
    gives, or are to be run again.

    ``tries``: how often cells were run again, which is counted here; ``log``: the task's.
    """
    killed = final.state == "FAILED" and final.signal > 0
    by_nobodys_fault = killed or final.state in OF_NODES
    advanced = bool(left.settled)
    for job in left.jobs:
        records: list[Record] = []
        again: list[Cell] = []
        attempts = list(job.attempts)
        for place, cell in enumerate(job.cells):
            record = left.settled.get(cell.identity)
            if record is not None and not (record.status == "interrupted" and by_nobodys_fault):
                records.append(record)
                continue
            begun = cell.identity in left.begun or record is not None
            if not begun and advanced and final.state == "COMPLETED":
                again.append(cell)  # the time of its task was over
                continue
            if (by_nobodys_fault or not begun) and final.state != "CANCELLED":
                tries[cell.identity] += 1
                if tries[cell.identity] <= RETRIES:
                    again.append(cell)
                    attempts[place] = job.attempts[place] if record is None else record.attempt
                    continue
            records.append(record or _recorded(job, cell, final, begun, by_nobodys_fault, log))
        yield Ended(job.model_copy(update={"attempts": tuple(attempts)}), records, again)


def tell_made(
    preparation: Preparation, final: Final, refused: str, log: Path, listener: PreparationListener
) -> None:
    """Tell how a task that makes what runs share has ended; BenchError if a source model failed.

    ``refused``: why what it makes does not apply.
    """
    if final.state == "COMPLETED" and refused:
        listener.preparation_does_not_apply(preparation, refused)
        return
    error = "" if final.state == "COMPLETED" else f"{final}: {last_line(log)}"
    listener.preparation_ends(preparation, error)
    require_source(preparation, error, log)


def _recorded(
    job: Job, cell: Cell, final: Final, begun: bool, by_nobodys_fault: bool, log: Path
) -> Record:
    """Write the record of a cell whose task left none."""
    status: Status = "failed"
    more: dict[str, Any] = {}
    why = f"the queue says {final} (log: {log.name}: {last_line(log)})"
    if final.state == "OUT_OF_MEMORY" and begun:
        status, more = "oom", {"oom_on": "host"}
    elif final.state in OF_RUNS and begun:
        status = "timeout"
    elif by_nobodys_fault or final.state == "CANCELLED":
        status = "interrupted"
        why = f"the queue says {final}{'' if begun else ', before it began'}"
    record = make_record(job, cell, status=status, reason=why, started=now(), wall_s=0.0, **more)
    Store(job.store).write(record)
    return record
