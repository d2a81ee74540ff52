"""``bench run``: run what is missing of a suite, then show the comparison."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import (
    DEFAULT_STORE,
    DEFAULT_SUITE,
    Devices,
    Interval,
    Methods,
    Model,
    Plugins,
    Seeds,
    StoreRoot,
    SuiteName,
    TunedFile,
    Untuned,
    Variants,
    duration,
    resolve,
    warn_unreadable,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.execute.base import Ended, Executor
    from bench.records.cell import Cell
    from bench.records.record import Record
    from bench.records.store import Store
    from bench.study.job import Job
    from bench.study.plan import Plan


class ExecutorName(StrEnum):
    """Where runs are executed."""

    processes = "processes"
    inline = "inline"


class Retry(StrEnum):
    """Which recorded outcomes are run again."""

    failed = "failed"
    timeout = "timeout"
    oom = "oom"
    unsupported = "unsupported"
    all = "all"


def default_jobs() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def command(
    suite: SuiteName = DEFAULT_SUITE,
    device: Devices = None,
    methods: Methods = None,
    model: Model = None,
    variant: Variants = None,
    seeds: Seeds = None,
    interval: Interval = None,
    untuned: Untuned = False,
    tuned: TunedFile = None,
    store: StoreRoot = DEFAULT_STORE,
    plugins: Plugins = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time. Default: the cores.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.1, help="Seconds until a run is killed."),
    ] = None,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            "--memory-limit",
            min=0.1,
            help="GiB of resident memory at which a run is killed. Default: 80 % / jobs.",
        ),
    ] = None,
    retry: Annotated[
        list[Retry] | None, typer.Option("--retry", help="Run such records again; repeatable.")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option("--tensorboard", help="Folder for live losses and accuracies.")
    ] = None,
    meter: Annotated[
        str,
        typer.Option(
            "--meter",
            help="Of a measured device's energy: auto, rapl, nvml, ina, csv:FILE or zeus.",
        ),
    ] = "auto",
    executor: Annotated[
        ExecutorName, typer.Option("--executor", help="'inline' for a debugger.")
    ] = ExecutorName.processes,
) -> None:
    """Run the missing cells of a suite and print the comparison.

    Exit code: 0 every run ended in a result, 1 some failed, 2 bad input, 130 stopped.
    """
    again = tuple(r.value for r in retry or [])
    if Retry.all in again:
        again = tuple(r.value for r in Retry)
    plan, opened = resolve(
        suite,
        device,
        methods,
        model,
        seeds,
        store,
        plugins,
        again,
        untuned,
        tuned,
        variant,
        interval,
    )
    meter = require_meter_of(meter, plan.suite.devices)
    workers = jobs or default_jobs()
    signal.signal(signal.SIGTERM, stop)
    progress = Progress(len(plan.done))
    runner = make_executor(executor, workers, timeout, memory_limit, progress.ended)
    board = str(tensorboard.resolve()) if tensorboard is not None else None
    try:
        from bench import registry

        for folder in (opened.records, opened.logs):
            require_folder(folder, f"--store {opened.root}")
        if tensorboard is not None:
            require_folder(tensorboard, f"--tensorboard {tensorboard}")
        todo = plan.jobs(opened, registry.plugins(), board, meter)
        train_sources(plan.missing, opened, runner, progress)
        progress.start(todo)
        runner.run(todo)
    except KeyboardInterrupt:
        progress.close()
        typer.echo(
            f"bench: stopped; {progress.settled - progress.interrupted} cells are done, "
            "the same command runs the rest",
            err=True,
        )
        raise typer.Exit(130) from None
    finally:
        progress.close()
        runner.close()
    records = _final(plan, opened)
    _conclude(records, opened)
    if any(record.is_failure for record in records):
        raise typer.Exit(1)


def stop(*_: object) -> None:
    """A signal handler that ends like Ctrl-C."""
    raise KeyboardInterrupt


def require_meter_of(name: str, devices: Iterable[str]) -> str:
    """The meter's name for jobs; BenchError if it cannot be used, or measures no device here."""
    from bench.costs.device_profile import MeasuredDevice, load_device
    from bench.meters.find import AUTO, require_meter

    if name == AUTO:
        return name
    checked = require_meter(name)
    if not any(isinstance(load_device(device), MeasuredDevice) for device in devices):
        raise BenchError(
            f"--meter {name}: the devices of this run are modelled; add --device host, or leave it "
            "out"
        )
    return checked


def require_folder(folder: Path, option: str) -> None:
    """Make a folder; BenchError that names the option if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(
            f"{option}: {folder} cannot be created: {error.strerror}; name another folder"
        ) from error
    if not os.access(folder, os.W_OK):
        raise BenchError(f"{option}: {folder} cannot be written; name another folder")


def make_executor(
    name: ExecutorName,
    workers: int,
    timeout: float | None,
    memory_gib: float | None,
    on_end: Callable[[Ended], Iterable[Job]],
) -> Executor:
    """The executor that the options ask for."""
    if name is ExecutorName.inline:
        from bench.execute.inline import InlineExecutor

        if timeout is not None or memory_gib is not None:
            raise BenchError("--executor inline: cannot enforce --timeout or --memory-limit")
        return InlineExecutor(on_end)
    import psutil

    from bench.execute.processes import ProcessExecutor

    limit = memory_gib * 2**30 if memory_gib else 0.8 * psutil.virtual_memory().total / workers
    return ProcessExecutor(on_end, workers, timeout, limit)


def train_sources(
    cells: Iterable[Cell], store: Store, runner: Executor, progress: Progress
) -> None:
    """Train the source models that cells share, once each, before their runs."""
    from bench import registry
    from bench.execute.processes import ProcessExecutor
    from bench.run.source_model import source_path

    if not isinstance(runner, ProcessExecutor):
        return
    wanted: dict[Path, Cell] = {}
    for cell in cells:
        stream_class = registry.load("stream", cell.stream.name)
        stream = stream_class(stream_class.Config.model_validate(cell.stream.config), cell.seed)
        wanted[source_path(cell, stream)] = cell
    for path, cell in wanted.items():
        if path.exists():
            continue
        log = store.log_path(f"source-{path.stem}")
        name = f"training {cell.model.name} on the source of {cell.stream.name}"
        progress.begin_source(name)
        runner.train_source(cell, log, progress.epoch)
        progress.end_source(f"{name}: done, cached in {path}")


class Progress:
    """A bar on a terminal, else one plain line per event; hands deferred cells back as jobs."""

    def __init__(self, done: int = 0) -> None:
        self._done = done
        self._bar: Any = None
        self._total = 0
        self._live = sys.stderr.isatty()
        self.settled = 0
        self.interrupted = 0

    def begin_source(self, name: str) -> None:
        """Source training begins."""
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=None, desc=name, unit="epoch", leave=False)
        else:
            typer.echo(f"{name} (once; then cached)", err=True)

    def epoch(self, done: int, total: int) -> None:
        """Source training has done so many epochs."""
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def end_source(self, text: str) -> None:
        """Source training is done."""
        self.close()
        typer.echo(text, err=True)

    def start(self, jobs: list[Job]) -> None:
        """The runs begin."""
        self._total = sum(len(job.cells) for job in jobs)
        if not self._total:
            typer.echo(f"nothing to run: all {self._done} cells are done", err=True)
            return
        typer.echo(f"{self._total} cells to run, {self._done} done before", err=True)
        if self._live:
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, unit="cell", smoothing=0.1, dynamic_ncols=True)

    def ended(self, ended: Ended) -> Iterable[Job]:
        """Show a job's records; return a job for the devices that it deferred."""
        for record in ended.records:
            self.settled += 1
            self.interrupted += record.status == "interrupted"
            text = f"{_title(record)}: {_outcome(record)}"
            if self._bar is not None:
                if record.status != "ok":
                    self._bar.write(text, file=sys.stderr)
                self._bar.set_postfix_str(f"{record.cell.method.name} {record.status}")
                self._bar.update()
            else:
                typer.echo(f"[{self.settled}/{self._total}] {text}", err=True)
        if not ended.deferred:
            return []
        import uuid

        numbers = [ended.job.cells.index(cell) for cell in ended.deferred]
        return [
            ended.job.model_copy(
                update={
                    "run": uuid.uuid4().hex[:16],
                    "cells": tuple(ended.deferred),
                    "attempts": tuple(ended.job.attempts[i] for i in numbers),
                }
            )
        ]

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _title(record: Record) -> str:
    return record.cell.title


def _outcome(record: Record) -> str:
    if record.results is None:
        return f"{record.status}: {record.reason}"
    results = record.results
    if results.seen_at_end is not None:
        told = f"accuracy over all seen {results.seen_at_end:.1%}"
    elif results.online is not None:
        told = f"online accuracy {results.online:.1%}"
    else:
        told = f"accuracy {results.mean('before'):.1%} -> {results.mean('after'):.1%}"
    return f"ok in {duration(record.wall_s)}, {told}"


def _final(plan: Plan, store: Store) -> list[Record]:
    found = [store.get(cell.identity) for cell in plan.cells]
    return [record for record in found if record is not None]


def _conclude(records: list[Record], store: Store) -> None:
    from bench import registry

    typer.echo(registry.load("report", "summary")(records))
    for record in records:
        if record.status != "ok":
            typer.echo(f"{record.status}: {_title(record)}: {record.reason} ({record.log})")
    typer.echo(f"records: {store.records.resolve()}")
    typer.echo(
        "next: bench report" + (f" --store {store.root}" if store.root != DEFAULT_STORE else "")
    )
    warn_unreadable(store)
