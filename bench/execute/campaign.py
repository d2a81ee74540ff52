"""From cells to records with any executor, and events: ``bench run``, ``tune``, `run_suite`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import registry
from bench.costs.device_profile import load_device
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits, available_cores
from bench.execute.preparation import PreparationListener, made_ahead, source_models
from bench.io.atomic_write import require_folder
from bench.meters.find import AUTO, require_meter
from bench.records.cell import Cell
from bench.records.protocol_facts import DEFAULT
from bench.records.record import Record
from bench.records.store import Store
from bench.registry.components import RUN_TIME
from bench.study.job import Job

if TYPE_CHECKING:
    from bench.study.plan import Plan


class CampaignListener(PreparationListener):
    """Receives the events of a campaign, in its process; override those of interest."""

    def runs_begin(self, jobs: Sequence[Job]) -> None:
        """The first jobs are handed to the executor; more may follow from them."""

    def record_ended(self, record: Record) -> None:
        """A cell has its record, however its run ended."""

    def run_left(self, files: Sequence[str]) -> None:
        """A run has left these files in shared memory, and no process uses them."""


def make_executor(name: str, workers: int | None = None, limits: Limits | None = None) -> Executor:
    """The executor of this name; BenchError if unknown or if it cannot enforce a limit."""
    executor: Executor = registry.load("executor", name)(workers or available_cores(), limits)
    return executor


class Campaign:
    """Runs cells to records in one store. As a context manager it closes the executor."""

    def __init__(
        self, store: Store, executor: Executor, listener: CampaignListener | None = None
    ) -> None:
        self.store = store
        self._executor = executor
        self._listener = listener or CampaignListener()

    def __enter__(self) -> Campaign:
        """Make the store's folders; BenchError if they cannot be written."""
        for folder in (self.store.records, self.store.logs):
            require_folder(folder, f"--store {self.store.root}")
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.close()

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Make and cache what runs share: source models, then variants and offline stages.

        Raises BenchError if a source model, or a component, fails.
        """
        _require_reachable(cells, self._executor)
        for found in (source_models, made_ahead):
            self._executor.prepare(found(cells), self.store.logs, self._listener)

    def run(
        self, jobs: Sequence[Job], follow: Callable[[Ended], Iterable[Job]] | None = None
    ) -> None:
        """Run jobs, and what ``follow`` gives for each, to the end; Ctrl-C stops and records."""
        self._listener.runs_begin(jobs)
        open_jobs = len(jobs)
        try:
            for job in jobs:
                self._executor.submit(job)
            while open_jobs:
                for ended in self._executor.wait():
                    open_jobs -= 1
                    for job in self._ended(ended, follow):
                        open_jobs += 1
                        self._executor.submit(job)
        except KeyboardInterrupt:
            for ended in self._executor.cancel():
                self._ended(ended, follow)
            raise

    def _ended(self, ended: Ended, follow: Callable[[Ended], Iterable[Job]] | None) -> list[Job]:
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


def run_plan(
    plan: Plan,
    store: Store,
    executor: Executor,
    listener: CampaignListener | None = None,
    tensorboard: Path | None = None,
    meter: str = AUTO,
) -> list[Record]:
    """Run what is missing of a plan; the records of all its cells that have one.

    ``meter`` as in `find_meter`. Raises BenchError if the meter, a folder, a source model or a
    component cannot be used; a run that fails is a record.
    """
    meter = _require_meter(meter, plan.suite.devices)
    with Campaign(store, executor, listener) as campaign:
        if tensorboard is not None:
            require_folder(tensorboard, f"--tensorboard {tensorboard}")
        jobs = plan.jobs(store, tensorboard, meter)
        campaign.prepare(plan.missing)
        campaign.run(jobs)
    found = [store.get(cell.identity) for cell in plan.cells]
    return [record for record in found if record is not None]
