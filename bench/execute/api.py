"""The Python API: run a suite, load results, write a report, from a notebook or a script.

Errors are `BenchError`; events go to the logger ``bench``, or to a listener of your own.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bench import registry
from bench.costs.device_profile import load_device
from bench.errors import BenchError, did_you_mean
from bench.execute.base import Limits
from bench.execute.campaign import CampaignListener, make_executor, run_plan
from bench.execute.preparation import Preparation
from bench.records.export import to_frame
from bench.records.index import collector_paused
from bench.records.log_tail import log_ends
from bench.records.record import Record
from bench.records.store import Store
from bench.records.summary import RecordSummary
from bench.study.job import Job
from bench.study.record_selection import left_out, matching, tuned_before_a_change
from bench.study.selection import DEFAULT_STORE, Selection, existing_store
from bench.study.suite import parse_seeds

if TYPE_CHECKING:
    import pandas as pd

RETRIES = ("failed", "timeout", "oom", "unsupported")
"""Statuses whose cells can be run again."""

_log = logging.getLogger("bench")


class LogListener(CampaignListener):
    """One line of the logger ``bench`` per event."""

    def preparation_advances(self, preparation: Preparation, done: int, total: int) -> None:
        if done == 0:
            _log.info("%s (once; then cached)", preparation.title)

    def preparation_ends(self, preparation: Preparation, error: str) -> None:
        if error:
            _log.info("%s: failed: %s", preparation.title, error)

    def preparation_does_not_apply(self, preparation: Preparation, reason: str) -> None:
        _log.info("%s: does not apply: %s", preparation.title, reason)

    def runs_begin(self, jobs: Sequence[Job]) -> None:
        _log.info("%d cells to run", sum(len(job.cells) for job in jobs))

    def record_ended(self, record: Record) -> None:
        _log.info("%s: %s", record.cell.title, record.reason or record.status)

    def others_run(self, cells: int) -> None:
        _log.info("%d cells are run by other commands; waiting for them", cells)

    def run_left(self, files: Sequence[str]) -> None:
        _log.warning("left in shared memory, and unused: %s; remove it", ", ".join(files))


@dataclass(frozen=True)
class SuiteResults:
    """What `run_suite` gives: the cells' records, and the folder of the store they lie in.

    ``missing``: cells whose record was removed meanwhile, by title, with what became of it.
    """

    store: Path
    records: list[Record]
    missing: list[str] = field(default_factory=list)


def run_suite(
    suite: str | Path = "smoke",
    device: str | Sequence[str] | None = None,
    methods: str | Sequence[str] | None = None,
    model: str | None = None,
    variants: str | Sequence[str] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    store: str | Path | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    *,
    source_draws: int | None = None,
    data_root: str | Path | None = None,
    executor: str = "processes",
    jobs: int | None = None,
    timeout_s: float | None = None,
    memory_bytes: float | None = None,
    retry: Sequence[str] = (),
    interval: float | None = None,
    untuned: bool = False,
    tuned: str | Path | None = None,
    tensorboard: str | Path | None = None,
    meter: str = "auto",
    isolate_labels: bool = False,
    accelerator: str | None = None,
    gpus: str | None = None,
    per_gpu: int = 1,
    threads: int | None = None,
    listener: CampaignListener | None = None,
) -> SuiteResults:
    """Run what is missing of a suite, as ``bench run`` does, and return its records.

    Parameters
    ----------
    suite : a suite's name, or the path of a suite file
    device, methods, model, variants, seeds : instead of the suite's; ``methods`` may add
        registered ones, and "all" are the suite's; ``seeds``: a number, some, or ``"0..4"``
    source_draws : how many source models are trained, each with what is made of it offline; every
        seed runs on each. By default the suite's number, or 1
    data_root : the folder that relative paths of the suite's data and models lie in
    store : folder of the records, by default ``BENCH_STORE`` or ``bench-results``
    plugins : Python files that register components
    executor : "processes" (each run isolated), "inline" (in this process: a class registered in a
        notebook works here alone), or another registered one
    jobs : runs at a time, by default the cores
    timeout_s, memory_bytes : seconds and bytes at which a run is ended
    retry : statuses of earlier records to run again: failed, timeout, oom, unsupported
    interval : seconds between batches, for a suite under online-timed
    untuned, tuned : the papers' default settings; a file of tuned settings
    tensorboard : folder for live losses and accuracies
    meter : of a measured device's energy: auto, rapl, nvml, ina, csv:FILE or zeus
    isolate_labels : whether labels of test splits stay out of the methods' processes
    accelerator, gpus, per_gpu, threads : where runs compute: "cpu", "cuda", "cuda:UUID" or "auto";
        GPUs as "0,1" and runs at a time on each; threads of each run on the CPU
    listener : receives the events

    Raises
    ------
    BenchError
        for what cannot be run at all; a run that fails is a record, not an exception
    KeyboardInterrupt
        stops the runs; the same call goes on where it was stopped
    """
    for name in retry:
        if name not in RETRIES:
            raise BenchError(f"retry: unknown status {name!r}: {did_you_mean(name, RETRIES)}")
    selection = Selection(
        suite=str(suite),
        devices=_texts(device),
        methods=None if methods is None else _texts(methods),
        model=model,
        variants=_texts(variants),
        seeds=_seeds(seeds),
        source_draws=source_draws,
        data_root=None if data_root is None else Path(data_root),
        interval=interval,
        untuned=untuned,
        tuned=None if tuned is None else Path(tuned),
        store=_folder(store),
        plugins=tuple(Path(text) for text in _texts(plugins)),
        accelerator=accelerator,
        gpus=gpus,
        per_gpu=per_gpu,
        threads=threads,
    )
    plan, opened = selection.plan(tuple(retry))
    outcome = run_plan(
        plan,
        opened,
        make_executor(
            executor,
            jobs,
            Limits(timeout_s, memory_bytes),
            selection.computing(plan.suite),
            plan.suite.threads,
        ),
        listener or LogListener(),
        None if tensorboard is None else Path(tensorboard),
        meter,
        isolate_labels,
    )
    for text in outcome.missing:
        _log.warning("%s", text)
    return SuiteResults(opened.root.resolve(), outcome.records, outcome.missing)


def load_results(store: str | Path | None = None) -> pd.DataFrame:
    """All records of a store as a tidy table: a row for each cell and domain.

    Columns of the cell: ``identity, suite, method, model, variant, stream, device, seed,
    source_draw, protocol, settings_origin, target_labels, status, reason, attempt, wall_s``.

    Of the domain: ``domain, before, after, final, online, adapted, adaptation_samples,
    test_samples, steps, time_s, energy_j, window_closed``.

    Of the whole stream, repeated in each row: ``score, source_before, source_after, forgetting,
    adaptation_time_s, adaptation_energy_j, peak_memory_bytes, runtime_memory_bytes,
    resident_memory_bytes, source_storage_bytes, inference_time_s, inference_energy_j, flops,
    costs_are``.

    `bench.records.export` says what they mean. A cell that did not end well has one row.
    Raises BenchError if the folder has no records; warns of files that cannot be read.
    """
    opened = existing_store(_folder(store))
    frame = to_frame(opened)
    for line in opened.warnings():
        warnings.warn(line, stacklevel=2)
    return frame


def report(
    store: str | Path | None = None,
    out: str | Path = "report",
    suite: str | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    methods: str | Sequence[str] | None = None,
    seeds: int | str | Iterable[int] | None = None,
    device: str | Sequence[str] | None = None,
    *,
    source_draws: int | None = None,
    data_root: str | Path | None = None,
    reference: str = "",
    margin: float | None = None,
    default_beside_tuned: bool = False,
    max_energy: float | None = None,
    max_memory: float | None = None,
    with_stores: str | Path | Sequence[str | Path] = (),
    figure_width: str = "page",
    figures: bool | None = None,
) -> list[Path]:
    """Write tables, figures and an offline page of a store's records; the files' paths.

    ``suite``: only the cells of this suite as it is now. ``methods, seeds, device``: only these,
    and with a suite instead of its own; ``source_draws``: only the first so many; ``data_root``: of
    the suite, as in `run_suite`. The others: see `write_report`. Raises BenchError if there is
    nothing to show or ``out`` cannot be written.
    """
    selection = Selection(
        suite=suite or "",
        devices=_texts(device),
        methods=None if methods is None else _texts(methods),
        seeds=_seeds(seeds),
        source_draws=source_draws,
        data_root=None if data_root is None else Path(data_root),
        plugins=tuple(Path(text) for text in _texts(plugins)),
    )
    further = [existing_store(Path(folder)) for folder in _texts(with_stores)]
    return write_report(
        existing_store(_folder(store)),
        Path(out),
        selection,
        reference=reference,
        margin=margin,
        default_beside_tuned=default_beside_tuned,
        max_energy=max_energy,
        max_memory=max_memory,
        further=further,
        figure_width=figure_width,
        figures=figures,
    )


class Layout(Protocol):
    """What a report file makes of records (`bench.reports.paper.Paper`)."""

    def choose(self, records: Iterable[RecordSummary]) -> list[RecordSummary]:
        """The records that it shows."""

    def write(self, records: Iterable[Record], folder: Path, note: str = "") -> list[Path]:
        """Write its files; their paths."""


def write_report(
    store: Store,
    out: Path,
    selection: Selection | None = None,
    warn: Callable[[str], None] = warnings.warn,
    *,
    reference: str = "",
    margin: float | None = None,
    default_beside_tuned: bool = False,
    max_energy: float | None = None,
    max_memory: float | None = None,
    further: Sequence[Store] = (),
    layout: Layout | None = None,
    jobs: int = 1,
    figure_width: str = "page",
    figures: bool | None = None,
) -> list[Path]:
    """The report of a store's records, or of those that are cells of a selection.

    Without a suite (an empty name) a selection chooses methods, seeds, devices and draws of the
    source among the records.
    ``reference``: a method, or the label of a row, to compare with besides no adaptation.
    ``margin``: points up to which two methods are tied in a scenario; None: the report's own.
    ``default_beside_tuned``: the cells of the suite with default settings too. ``max_energy,
    max_memory``: J and MB within which the answer names the best too. ``further``: stores
    whose records are read as well; of one cell the record that was started last counts.
    The report says, and ``warn`` receives, what the suite leaves out and which settings were tuned
    on older code. ``warn`` also receives a line for every file that is no record, and their number.
    ``layout``: of a report file, whose tables and figures are written instead. ``jobs``: processes
    that draw figures; ``figure_width``: theirs, "page" or "column", without a layout; ``figures``:
    whether those of each comparison are written, by default of up to `MOST_DRAWN` (reports/write).
    """
    chosen = selection or Selection(suite="")
    for plugin in chosen.plugins:
        registry.add_plugin(plugin)
    if default_beside_tuned and not chosen.suite:
        raise BenchError(
            "--default-beside-tuned adds cells of a suite: name it with --suite; without one the "
            "report has all records already"
        )
    if default_beside_tuned and chosen.untuned:
        raise BenchError("--default-beside-tuned and --untuned: give one of them")
    if margin is not None and not 0 <= margin < 100:
        raise BenchError(f"--margin {margin:g}: give points from 0 to below 100, as 1")
    given = {"margin": margin and margin / 100, "max_energy": max_energy, "max_memory": max_memory}
    given["figures"] = figures
    told_of: dict[str, Any] = {n: value for n, value in given.items() if value is not None}
    stores = (store, *further)
    with collector_paused():
        found = [(record, each) for each in stores for record in each.summaries()]
        every = [record for record, _ in found]
        known = matching(every, chosen.methods, chosen.seeds, chosen.devices, chosen.source_draws)
        if layout is not None:
            if reference or told_of:
                raise BenchError(
                    "--reference, --margin, --max-energy, --max-memory and --figures are for a "
                    "report without a file or --columns; leave them out"
                )
            known = layout.choose(known)
        notes = []
        if chosen.suite:
            devices = _devices(known, warn)
            kept, plans = replace(chosen, devices=devices, store=store.root), []
            cells_of = {record.template.key: record.template.cell for record in known}
            ways = {(c.accelerator, c.threads) for c in cells_of.values()} or {("cpu", 1)}
            for accelerator, threads in sorted(ways):
                here = replace(kept, accelerator=accelerator, threads=threads)
                plans.append(here.plan(warn=warn)[0])
                if default_beside_tuned:
                    plans.append(replace(here, untuned=True, tuned=None).plan(warn=warn)[0])
            plan, cells = plans[0], [cell for each in plans for cell in each.cells]
            wanted = {cell.identity for cell in cells}
            told = [left_out(known, cells), plan.stale_note()]
            known = [record for record in known if record.identity in wanted]
            notes.append(f"suite {plan.suite.name}")
        else:
            told = [tuned_before_a_change(known)]
        kept_ids = {id(record) for record in known}
        records: list[Record] = []
        for each in stores:
            records += each.read(r.identity for r, of in found if of is each and id(r) in kept_ids)
    for line in [line for each in stores for line in each.warnings()]:
        warn(line)
    for text in filter(None, told):
        warn(text)
        notes.append(text)
    if layout is not None:
        return layout.write(records, out, "; ".join(notes))
    told_of |= {"logs": log_ends(records, stores), "jobs": jobs, "figure_width": figure_width}
    write = registry.load("report", "files")
    return list(write(records, out, "; ".join(notes), reference, **told_of))


def _devices(records: Iterable[RecordSummary], warn: Callable[[str], None]) -> tuple[str, ...]:
    """The devices of the records whose profiles still exist."""
    found = []
    templates = {record.template.key: record.template for record in records}
    for name in sorted({template.cell.device for template in templates.values()}):
        try:
            load_device(name)
        except BenchError as error:
            warn(f"records of device {name!r} left out: {error}")
        else:
            found.append(name)
    return tuple(found)


def _texts(given: str | Path | Iterable[str | Path] | None) -> tuple[str, ...]:
    """One, several or none, as texts."""
    if given is None:
        return ()
    return tuple(str(each) for each in ([given] if isinstance(given, str | Path) else given))


def _seeds(given: int | str | Iterable[int] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    if isinstance(given, int):
        given = f"0..{given - 1}"
    return tuple(parse_seeds(given if isinstance(given, str) else ",".join(map(str, given))))


def _folder(store: str | Path | None) -> Path:
    return Path(store or os.environ.get("BENCH_STORE") or DEFAULT_STORE)
