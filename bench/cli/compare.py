"""``bench compare``: what changed between two stores beyond noise."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.options import warn_unreadable
from bench.study.selection import existing_store

Format = StrEnum("Format", "text markdown json")
"""How it is written."""


def command(
    store_a: Annotated[Path, Argument(help="Folder of the records to compare with.")],
    store_b: Annotated[Path, Argument(help="Folder of the newer records.")],
    format_: Annotated[Format, Option("--format", help="How it is written.")] = Format.text,
) -> None:
    """Say what changed between two stores beyond noise, paired by seed and source draw.

    Exit code: 0 no change beyond noise, 1 a score or cost changed or a run ended otherwise,
    2 bad input, also where no run is in both.
    """
    from bench import registry

    stores = [existing_store(folder) for folder in (store_a, store_b)]
    records = [list(store) for store in stores]
    for store in stores:
        warn_unreadable(store)
    names = str(store_a), str(store_b)
    told, changed = registry.load("report", "changes")(*records, names, format_.value)
    typer.echo(told, nl=False)
    raise typer.Exit(changed)
