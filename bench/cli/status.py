"""``bench status``: what the store holds."""

from __future__ import annotations

from collections import Counter, defaultdict

import typer

from bench.cli.options import StoreRoot, warn_unreadable
from bench.io.duration import duration
from bench.io.one_line import one_line
from bench.study.selection import DEFAULT_STORE, existing_store


def command(store: StoreRoot = DEFAULT_STORE) -> None:
    """Count the records by suite and status, and say why runs did not end well."""
    from bench.execute.claims import EXPIRES_S, seen_claims

    opened = existing_store(store)
    counts: Counter[tuple[str, str]] = Counter()
    draws: dict[tuple[str, str], set[int]] = defaultdict(set)
    failed = []
    for record in opened.summaries():
        counts[record.suite, record.status] += 1
        draws[record.suite, record.status].add(record.source_draw)
        if record.status != "ok":
            failed.append(record)
    typer.echo(f"{counts.total()} records in {opened.records}")
    if ignored := opened.count_ignored():
        typer.echo(f"  {ignored} (each is named below)")
    for (suite, status), number in sorted(counts.items()):
        drawn = len(draws[suite, status])
        on = f" on {drawn} source draws" if drawn > 1 else ""
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
    for record in sorted(failed, key=lambda r: r.started):
        typer.echo(f"{record.status}: {record.cell.title}: {record.reason}")
        typer.echo(f"  log: {one_line(str(opened.root / record.log))}")
    warn_unreadable(opened)
