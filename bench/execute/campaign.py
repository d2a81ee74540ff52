"""From cells to records with any executor, and events: ``bench run``, ``tune``, `run_suite`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.accelerator.choice import Choice
from bench.costs.device_profile import load_device
from bench.errors import BenchError
from bench.execute.announced import Announcement, remove_ended
from bench.execute.base import Ended, Executor, Limits
from bench.execute.claims import Claims, remove_dead_claims
from bench.execute.preparation import PreparationListener, made_ahead, source_models
from bench.io.atomic_write import remove_stale, require_folder
from bench.io.weights_cache import remove_stale_weights
from bench.meters.find import AUTO, require_meter
from bench.records.cell import Cell
from bench.records.protocol_facts import DEFAULT
from bench.records.record import Record
from bench.records.store import Store
from bench.registry.components import RUN_TIME
from bench.study.job import Job
from bench.study.resources import Resources
from bench.study.time_estimates import scaled_times

if TYPE_CHECKING:
    from bench.study.plan import Plan


AGAIN_S = 1.0
"""Seconds until cells that another command runs are asked for again."""


class CampaignListener(PreparationListener):
    """Receives the events of a campaign, in its process; override those of interest."""

    def runs_begin(self, jobs: Sequence[Job]) -> None:
        """The first jobs are handed to the executor; more may follow from them."""

    def record_ended(self, record: Record) -> None:
        """A cell has its record, however its run ended and whichever command ran it."""

    def others_run(self, cells: int) -> None:
        """Nothing is left but ``cells`` that other commands run; this one waits for them."""

    def run_left(self, files: Sequence[str]) -> None:
        """A run has left these files in shared memory, and no process uses them."""


def make_executor(
    name: str,
    workers: int | None = None,
    limits: Limits | None = None,
    computing: Choice | None = None,
    threads: int = 1,
    resources: Resources | None = None,
    given: Sequence[str] = (),
) -> Executor:
    """The executor of this name; BenchError if unknown or if it cannot enforce a limit.

    ``workers``: by default as many as there are cores for, with so many ``threads`` each, or as a
    queue takes. ``resources``, ``given``: as `Executor.use_resources` has them.
    ``computing``: where runs compute, by default on the CPU.
    """
    kind: type[Executor] = registry.load("executor", name)
    executor = kind(workers or kind.default_workers(threads), limits)
    if resources is not None:
        executor.use_resources(resources, given)
    if computing is not None and computing.kind != "cpu":
        executor.compute_on(computing)
    return executor


class Campaign:
    """Runs cells to records in one store. As a context manager it closes the executor.

    Cells are claimed while they run, so that several campaigns on one store share them.
    ``claims``: of the campaign, by default its own; that of a task in a queue has those of the
    command which submitted it, and leaves what others run instead of waiting.
    """

    def __init__(
        self,
        store: Store,
        executor: Executor,
        listener: CampaignListener | None = None,
        claims: Claims | None = None,
    ) -> None:
        self.store = store
        self._executor = executor
        self._listener = listener or CampaignListener()
        self._claims = claims or Claims(store)
        self._waits = claims is None
        self._announcement = Announcement(store, self._claims.token)
        self._claimed: deque[Job] = deque()  # by others
        self._ask_again = 0.0

    def __enter__(self) -> Campaign:
        """Make the store's folders, remove what killed commands left; BenchError if impossible."""
        for folder in (self.store.records, self.store.logs):
            require_folder(folder, f"--store {self.store.root}")
            remove_stale(folder)
        self._executor.hold(self._claims)
        remove_dead_claims(self.store)
        remove_ended(self.store)
        remove_stale_weights()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._executor.close()
        finally:
            self._announcement.close()
            self._claims.close()

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Make and cache what runs share: source models, then variants and offline stages.

        Raises BenchError if a component fails, and so does this or `run` if a source model does.
        """
        _require_reachable(cells, self._executor)
        found = [*source_models(cells), *made_ahead(cells)]
        self._executor.prepare(found, self.store.logs, self._listener)

    def run(
        self, jobs: Sequence[Job], follow: Callable[[Ended], Iterable[Job]] | None = None
    ) -> None:
        """Run jobs, and what ``follow`` gives for each, to the end; Ctrl-C stops and records."""
        self._listener.runs_begin(jobs)
        if self._waits:
            self._announcement.add(cell for job in jobs for cell in job.cells)
        pending, running, others = deque(jobs), 0, 0
        try:
            while pending or self._claimed or running:
                found: list[Ended] = []
                while running < self._executor.workers and (job := self._next(pending, found)):
                    self._executor.submit(job)
                    running += 1
                if running:
                    ended = self._executor.wait()
                    running -= len(ended)
                    found += ended
                elif not found and self._claimed:
                    left = sum(len(job.cells) for job in self._claimed)
                    if left != others:
                        self._listener.others_run(left)
                    others = left
                    time.sleep(AGAIN_S)
                for each in found:
                    pending.extend(self._ended(each, follow))
        except KeyboardInterrupt:
            for each in self._executor.cancel():
                self._ended(each, follow)
            raise

    def _next(self, pending: deque[Job], found: list[Ended]) -> Job | None:
        """The next job whose cells could be claimed, if there is one.

        Jobs of other commands' cells are put aside, and what those commands have settled since is
        added to ``found``.
        """
        if self._claimed and time.monotonic() >= self._ask_again:
            self._ask_again = time.monotonic() + AGAIN_S
            pending.extendleft(reversed(self._claimed))
            self._claimed.clear()
        while pending:
            job = pending.popleft()
            mine = self._claims.take(job.cells)
            settled = [r for cell in mine if (r := self._settled_since(job, cell)) is not None]
            if settled:
                self._claims.release(record.cell for record in settled)
                found.append(Ended(job, settled, []))
            known = {record.identity for record in settled}
            to_run = [cell for cell in mine if cell.identity not in known]
            if len(mine) < len(job.cells) and self._waits:
                self._claimed.append(job.again([cell for cell in job.cells if cell not in mine]))
            if to_run:
                return job if len(to_run) == len(job.cells) else job.again(to_run)
        return None

    def _settled_since(self, job: Job, cell: Cell) -> Record | None:
        """The record that another command made of a cell since the job was planned."""
        record = self.store.get(cell.identity)
        if record is None or record.status == "interrupted":
            return None
        earlier = job.attempts[job.cells.index(cell)]
        return record if record.status == "ok" or record.attempt > earlier else None

    def _ended(self, ended: Ended, follow: Callable[[Ended], Iterable[Job]] | None) -> list[Job]:
        self._claims.release(record.cell for record in ended.records)
        for record in ended.records:
            self._listener.record_ended(record)
        if ended.left:
            self._listener.run_left(ended.left)
        deferred = [ended.job.again(ended.deferred)] if ended.deferred else []
        return [*deferred, *(follow(ended) if follow is not None else ())]


def _require_reachable(cells: Iterable[Cell], executor: Executor) -> None:
    """Raise BenchError if a component exists in this process alone and runs do not happen here."""
    if executor.in_process:
        return
    for cell in cells:
        kinds = ("method", "model", "stream", "variant")
        components = {kind: getattr(cell, kind) for kind in kinds}
        names = {kind: component.name for kind, component in components.items() if component}
        names["protocol"] = cell.protocol.get("name", DEFAULT)
        for kind, name in names.items():
            if registry.entry(kind, name).origin == RUN_TIME:
                raise BenchError(
                    f"{kind} {name!r} is registered in this session alone, and the processes of "
                    "the runs cannot find it: write it to a file and name that in plugins, or take "
                    "executor='inline'"
                )


def _require_meter(name: str, devices: Iterable[str]) -> str:
    """The meter's name for jobs; BenchError if it cannot be used, or measures no device here."""
    if name == AUTO:
        return name
    checked = require_meter(name)
    if not any(load_device(device).cost == "measured" for device in devices):
        raise BenchError(
            f"--meter {name}: the devices of this run are modelled; add --device host, or leave it "
            "out"
        )
    return checked


@dataclass(frozen=True)
class Outcome:
    """What a campaign left: the records of the plan's cells, and the cells without one.

    ``missing``: by title, with what became of the record.
    """

    records: list[Record]
    missing: list[str]


def dry_run_plan(plan: Plan, store: Store, executor: Executor) -> list[str]:
    """What `run_plan` would submit to a queue, a command a line; BenchError without a queue."""
    executor.expect(plan.seconds(store.summaries(), lambda: scaled_times(plan.path)))
    ahead = [*source_models(plan.missing), *made_ahead(plan.missing)]
    return executor.dry_run(plan.jobs(store), ahead)


def run_plan(
    plan: Plan,
    store: Store,
    executor: Executor,
    listener: CampaignListener | None = None,
    tensorboard: Path | None = None,
    meter: str = AUTO,
    isolate_labels: bool = False,
) -> Outcome:
    """Run what is missing of a plan; the records of all its cells.

    ``isolate_labels`` as in `bench.run.label_process`, ``meter`` as in `find_meter`. Raises
    BenchError if the meter, a folder, a source model or a component cannot be used; a run that
    fails is a record.
    """
    on_gpu = meter == "nvml" and executor.computing.kind == "cuda"  # each run reads its own GPU's
    meter = meter if on_gpu else _require_meter(meter, plan.suite.devices)
    # Before a campaign begins: what it then records of killed commands' runs is no earlier attempt.
    jobs = plan.jobs(store, tensorboard, meter, isolate_labels)
    with Campaign(store, executor, listener) as campaign:
        if tensorboard is not None:
            require_folder(tensorboard, f"--tensorboard {tensorboard}")
        if executor.elsewhere:
            executor.expect(plan.seconds(store.summaries(), lambda: scaled_times(plan.path)))
        campaign.prepare(plan.missing)
        campaign.run(jobs)
    records, missing = [], []
    for cell in plan.cells:
        record = store.get(cell.identity)
        if record is not None:
            records.append(record)
            continue
        path = store.path(cell.identity)
        why = store.unreadable.get(path, "it was removed while the command ran")
        missing.append(f"{cell.title}: no record {path}: {why}; the same command runs it again")
    return Outcome(records, missing)
