"""``bench cache``: what is kept between runs, and how to make it smaller."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Annotated

import typer
from typer import Option

from bench.errors import BenchError
from bench.io.text_table import aligned

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

DAY_S = 86400.0


@app.callback()
def _default() -> None:
    """The cache of source models, offline stages and unpacked data: list it, make it smaller."""


@app.command("list")
def list_() -> None:
    """List what the cache holds, by kind."""
    from bench.io.cache_contents import Entry, entries
    from bench.io.weights_cache import cache_folder

    by_kind: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries():
        by_kind[entry.kind].append(entry)
    rows = [["kind", "entries", "MB", "last used, days ago"]]
    for kind, found in by_kind.items():
        size = sum(entry.bytes for entry in found)
        days = (time.time() - max(entry.used for entry in found)) / DAY_S
        rows.append([kind, str(len(found)), f"{size / 1e6:.1f}", f"{max(days, 0):.1f}"])
    total = sum(entry.bytes for found in by_kind.values() for entry in found)
    typer.echo(aligned(rows))
    typer.echo(f"{total / 1e6:.1f} MB in {cache_folder()}")


@app.command("prune")
def prune_(
    to: Annotated[float, Option(min=0.0, help="GB that may stay.")],
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say what would go; remove nothing.")
    ] = False,
) -> None:
    """Remove what was used least recently until at most so much stays.

    Nothing of it is lost for good: the next run that needs it makes it again, which takes as long
    as the first time. What a run is making stays, but not unpacked data that it reads: prune
    between runs.
    """
    from bench.io.cache_contents import entries, prune

    try:
        gone = prune(to * 1e9, dry_run)
    except OSError as error:
        raise BenchError(f"cache: {error.filename}: {error.strerror}; remove it by hand") from error
    for entry in gone:
        typer.echo(f"{entry.kind}/{entry.path.name}: {entry.bytes / 1e6:.1f} MB")
    size = sum(entry.bytes for entry in gone)
    left = sum(entry.bytes for entry in entries()) - (size if dry_run else 0)
    said = "would go" if dry_run else "removed"
    typer.echo(f"{len(gone)} entries, {size / 1e6:.1f} MB {said}; {left / 1e6:.1f} MB stay")
