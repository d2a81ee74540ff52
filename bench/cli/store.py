"""``bench store``: merge stores, read every record of one, export it, remove what is needless."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.options import StoreRoot, warn_unreadable
from bench.errors import BenchError
from bench.study.selection import DEFAULT_STORE, existing_store, open_store

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


class Format(StrEnum):
    """Of an export."""

    CSV = "csv"
    PARQUET = "parquet"
    ZIP = "zip"
    TAR_XZ = "tar.xz"
    EVERY_EVAL_EVER = "every-eval-ever"
    MODEL_CARD = "model-card"
    HF_EVAL_RESULTS = "hf-eval-results"


@app.callback()
def _default() -> None:
    """Stores as a whole: merge them, check them, export them, remove what is needless."""


@app.command("merge")
def merge_(
    others: Annotated[list[Path], Argument(help="Stores to copy from.")],
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Copy records of other stores: ok wins; 1 if two records of a cell differ otherwise."""
    from bench.records.merge import merge

    opened = [existing_store(folder) for folder in others]
    done = merge(open_store(store), opened)
    told = ", ".join(f"{count} {what}" for what, count in sorted(done.counts.items()))
    typer.echo(f"{told or 'nothing'}; {len(done.conflicts)} conflicts")
    for line in done.conflicts:
        typer.echo(f"conflict: {line}")
    for each in opened:
        warn_unreadable(each)
    raise typer.Exit(bool(done.conflicts))


@app.command("check")
def check_(store: StoreRoot = DEFAULT_STORE) -> None:
    """Read every record, without the index; 1 if a file is no record."""
    opened = existing_store(store)
    typer.echo(f"{sum(1 for _ in opened)} records in {opened.records} can be read")
    bad = bool(opened.unreadable)
    warn_unreadable(opened)
    raise typer.Exit(bad)


@app.command("export")
def export_(
    out: Annotated[Path, Argument(help="File to write; of the last three formats a folder.")],
    format_: Annotated[Format, Option("--format", help="Of the file.")] = Format.CSV,
    store: StoreRoot = DEFAULT_STORE,
    organization: Annotated[
        str, Option(help="Who made the runs, for every-eval-ever and hf-eval-results.")
    ] = "",
    benchmark: Annotated[
        str, Option(help="Data set of a leaderboard, OWNER/NAME, for hf-eval-results.")
    ] = "",
    source: Annotated[
        str, Option(help="Address where the records can be read, for hf-eval-results.")
    ] = "",
) -> None:
    """Write all records: a table with a row a domain, an archive, scores in formats of others."""
    from bench.records.export_files import export

    further = {"benchmark": benchmark, "source": source}
    if format_ is not Format.HF_EVAL_RESULTS:
        if any(further.values()):
            raise BenchError("--benchmark and --source are for --format hf-eval-results")
        further = {}
    opened = existing_store(store)
    typer.echo(f"{export(opened, format_.value, out, organization, **further)} records in {out}")
    warn_unreadable(opened)


@app.command("prune")
def prune_(
    store: StoreRoot = DEFAULT_STORE,
    yes: Annotated[bool, Option("--yes", help="Remove them; else they are only shown.")] = False,
) -> None:
    """Show records of older code and logs that nothing needs, or remove them with --yes."""
    from bench.records.prune import needless, remove

    opened = existing_store(store, to_change=True)
    found = needless(opened)
    for each in found:
        typer.echo(each)
    size = sum(each.size for each in found) / 1e6
    done = f"{len(remove(opened, found))} removed" if yes else "--yes removes them" * bool(found)
    typer.echo(f"{len(found)} files, {size:.1f} MB{f'; {done}' if done else ''}")
    warn_unreadable(opened)
