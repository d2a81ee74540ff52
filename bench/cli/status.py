"""``bench status``: what the store holds."""

from __future__ import annotations

import typer

from bench.cli.options import StoreRoot, warn_unreadable
from bench.io.one_line import one_line
from bench.study.selection import DEFAULT_STORE, existing_store


def command(store: StoreRoot = DEFAULT_STORE) -> None:
    """Count the records by suite and status, and say why runs did not end well."""
    from bench.live.state import look

    opened = existing_store(store)
    state = look(opened)
    typer.echo(f"{len(state.records)} records in {opened.records}")
    if state.ignored:
        typer.echo(f"  {state.ignored} (each is named below)")
    for line in state.by_suite():
        typer.echo(f"  {line}")
    for each in state.claims:
        typer.echo(f"{each.state}: {each.title} ({each.where})")
    for record in state.troubles:
        typer.echo(f"{record.status}: {record.cell.title}: {record.reason}")
        typer.echo(f"  log: {one_line(str(opened.root / record.log))}")
    warn_unreadable(opened)
