"""``bench run``: run what is missing of a suite, then show the comparison."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench.cli import options
from bench.errors import BenchError
from bench.study.selection import DEFAULT_STORE, Selection

if TYPE_CHECKING:
    from bench.records.record import Record

Retry = StrEnum("Retry", "failed timeout oom unsupported all")
"""Which recorded outcomes are run again."""


@options.with_selection
def command(
    selection: Selection,
    jobs: options.Jobs = None,
    timeout: options.Timeout = None,
    memory_limit: Annotated[
        float | None,
        Option(
            min=0.1, help="GiB of resident memory at which a run is killed. Default: 80 % / jobs."
        ),
    ] = None,
    retry: Annotated[list[Retry] | None, Option(help="Run such records again; repeatable.")] = None,
    tensorboard: Annotated[Path | None, Option(help="Folder of live losses and accuracy.")] = None,
    meter: Annotated[
        str, Option(help="Of a measured device's energy: auto, rapl, nvml, ina, csv:FILE or zeus.")
    ] = "auto",
    isolate_labels: Annotated[
        bool,
        Option("--isolate-labels", help="Keep labels of test splits out of the method's process."),
    ] = False,
    executor: options.ExecutorName = options.DEFAULT_EXECUTOR,
    on: Annotated[
        str | None, Option(help="A board of 'bench board list'; --device is then host by default.")
    ] = None,
    ray_address: Annotated[
        str | None, Option(help="Ray cluster, with --executor ray. Default: one on this machine.")
    ] = None,
    partition: Annotated[str | None, Option(help="Of the queue, with --executor slurm.")] = None,
    mem: Annotated[str | None, Option(help="Memory of each task in the queue, as 8G.")] = None,
    minutes: Annotated[
        int | None, Option(help="Time limit of each task. Default: by 'bench plan'.")
    ] = None,
    sbatch: Annotated[
        list[str] | None, Option(help="Further option of sbatch, as --account=lab; repeatable.")
    ] = None,
    image: Annotated[str | None, Option(help="Of containers, with --executor k8s.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Print what a queue gets.")] = False,
) -> None:
    """Run the missing cells of a suite and print the comparison.

    Exit code: 0 every run ended in a result, 1 some failed or have no record, 2 bad input,
    130 stopped.
    """
    from bench import registry
    from bench.cluster.boards import require_same_board
    from bench.execute.base import Limits
    from bench.execute.campaign import dry_run_plan, run_plan
    from bench.live.progress import Progress, stoppable
    from bench.study.resources import resources_of

    again = tuple(r.value for r in retry or [])
    if Retry.all in again:
        again = tuple(r.value for r in Retry)
    if on is not None and not selection.devices:
        selection = replace(selection, devices=("host",))
    plan, store = selection.plan(again, options.warn)
    if note := plan.stale_note():
        options.warn(note)
    options.warn_unreadable(store)
    limits = Limits(timeout, memory_limit and memory_limit * 2**30)
    if on is not None and executor != options.DEFAULT_EXECUTOR:
        raise BenchError(f"--on {on} and --executor {executor}: give one of them")
    asked = {"--partition": partition, "--mem": mem, "--minutes": minutes, "--sbatch": sbatch}
    asked |= {"--ray-address": ray_address, "--image": image}
    if on is None:
        runner = options.executor_of(executor, selection, plan.suite, jobs, limits, asked)
    else:
        options.tell_computing(selection, plan.suite)
        runner = registry.load("executor", "ssh").on(on, limits)
        runner.use_resources(*resources_of(plan.suite.resources, asked))
    require_same_board(plan, on or "")
    if dry_run:
        typer.echo("\n".join(dry_run_plan(plan, store, runner)))
        return
    progress = Progress(len(plan.done))

    def said() -> str:
        ended = progress.settled - progress.interrupted
        return f"{ended} cells are done, the same command runs the rest"

    with stoppable(progress, said):
        outcome = run_plan(plan, store, runner, progress, tensorboard, meter, isolate_labels)
    records = outcome.records
    typer.echo(registry.load("report", "summary")(records))
    if note:
        options.warn(note)
    for line in _without_results(records):
        typer.echo(line)
    for text in outcome.missing:
        typer.echo(f"missing: {text}")
    typer.echo(f"records: {store.records.resolve()}")
    beside = f" --store {store.root}" if store.root != DEFAULT_STORE else ""
    typer.echo(f"next: bench report{beside}")
    options.warn_unreadable(store)
    if outcome.missing or any(record.is_failure for record in records):
        raise typer.Exit(1)


def _without_results(records: Sequence[Record]) -> Iterator[str]:
    """A line for each run without results; one for all that a reason makes unsupported."""
    alike: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.status == "unsupported":
            alike[record.reason].append(record)
        elif record.status != "ok":
            yield f"{record.status}: {record.cell.title}: {record.reason} ({record.log})"
    for reason, group in alike.items():
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        yield f"unsupported: {group[0].cell.title}{more}: {reason} ({group[0].log})"
