"""``bench store``: merge stores, and read every record of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import StoreRoot, warn_unreadable
from bench.study.selection import DEFAULT_STORE, existing_store, open_store

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _default() -> None:
    """Stores as a whole: merge them, check them."""


@app.command("merge")
def merge_(
    others: Annotated[list[Path], typer.Argument(help="Stores to copy from.")],
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
