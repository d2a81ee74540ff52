"""``bench run``: run what is missing of a suite, then show the comparison."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    DEFAULT_EXECUTOR,
    ExecutorName,
    Jobs,
    warn,
    warn_unreadable,
    with_selection,
)
from bench.study.selection import DEFAULT_STORE, Selection

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.records.store import Store


class Retry(StrEnum):
    """Which recorded outcomes are run again."""

    failed = "failed"
    timeout = "timeout"
    oom = "oom"
    unsupported = "unsupported"
    all = "all"


@with_selection
def command(
    selection: Selection,
    jobs: Jobs = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0.1, help="Seconds until a run is killed.")
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
    executor: ExecutorName = DEFAULT_EXECUTOR,
) -> None:
    """Run the missing cells of a suite and print the comparison.

    Exit code: 0 every run ended in a result, 1 some failed, 2 bad input, 130 stopped.
    """
    from bench.cli.progress import Progress, sigterm_as_ctrl_c
    from bench.execute.base import Limits
    from bench.execute.campaign import make_executor, run_plan

    again = tuple(r.value for r in retry or [])
    if Retry.all in again:
        again = tuple(r.value for r in Retry)
    plan, store = selection.plan(again, warn)
    limits = Limits(timeout, memory_limit and memory_limit * 2**30)
    runner = make_executor(executor, jobs, limits)
    progress = Progress(len(plan.done))
    try:
        with sigterm_as_ctrl_c():
            records = run_plan(plan, store, runner, progress, tensorboard, meter)
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
    _conclude(records, store)
    if any(record.is_failure for record in records):
        raise typer.Exit(1)


def _conclude(records: list[Record], store: Store) -> None:
    from bench import registry

    typer.echo(registry.load("report", "summary")(records))
    for record in records:
        if record.status != "ok":
            typer.echo(f"{record.status}: {record.cell.title}: {record.reason} ({record.log})")
    typer.echo(f"records: {store.records.resolve()}")
    typer.echo(
        "next: bench report" + (f" --store {store.root}" if store.root != DEFAULT_STORE else "")
    )
    warn_unreadable(store)
