"""``bench status``: what the store holds."""

from __future__ import annotations

from collections import Counter

import typer

from bench.cli.options import StoreRoot, duration, warn_unreadable
from bench.io.one_line import one_line
from bench.study.selection import DEFAULT_STORE, existing_store


def command(store: StoreRoot = DEFAULT_STORE) -> None:
    """Count the records by suite and status, and say why runs did not end well."""
    from bench.execute.claims import EXPIRES_S, seen_claims

    opened = existing_store(store)
    records = list(opened)
    counts = Counter((record.suite, record.status) for record in records)
    typer.echo(f"{len(records)} records in {opened.records}")
    if ignored := opened.count_ignored():
        typer.echo(f"  {ignored} (each is named below)")
    for (suite, status), number in sorted(counts.items()):
        draws = {r.cell.source_draw for r in records if (r.suite, r.status) == (suite, status)}
        on = f" on {len(draws)} source draws" if len(draws) > 1 else ""
        typer.echo(f"  {one_line(suite)}: {number} {status}{on}")
    for claim, state, untouched_s in seen_claims(opened):
        where = claim.ticket or f"process {claim.pid} on {claim.host}"
        if claim.ticket and claim.state == "running":
            where += f", process {claim.pid} on {claim.host}"
        if state == "lost":
            where += "; the same command runs it again"
        elif abs(untouched_s) > EXPIRES_S:
            where += f"; no sign of life for {duration(untouched_s)} by this machine's clock"
        typer.echo(one_line(f"{state}: {claim.title} ({where})"))
    for record in sorted(records, key=lambda r: r.started):
        if record.status != "ok":
            typer.echo(f"{record.status}: {record.cell.title}: {record.reason}")
            typer.echo(f"  log: {one_line(str(opened.root / record.log))}")
    warn_unreadable(opened)
