"""``bench status``: what the store holds."""

from __future__ import annotations

import typer

from bench.cli.options import StoreRoot, warn_unreadable
from bench.study.selection import DEFAULT_STORE, existing_store


def command(store: StoreRoot = DEFAULT_STORE) -> None:
    """Count the records by suite and status, and say why runs did not end well."""
    from bench.live.state import told

    opened = existing_store(store)
    for line in told(opened):
        typer.echo(line)
    warn_unreadable(opened)
