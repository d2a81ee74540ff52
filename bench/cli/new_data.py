"""``bench new-data``: a working data set to change into one's own layout, with its test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from bench.cli.new_method import INSTALL, write


def command(
    name: Annotated[str, Argument(help="As my-data: the file becomes my_data.py.")],
    folder: Annotated[Path, Option("--dir", help="Folder to write to.")] = Path("."),
) -> None:
    """Write a small data set that keeps the contract, and its test; both pass as they are."""
    file, test = write("dataset", name, "data", folder)
    given = f"{file.stem.replace('_', '-')} --root DIR --plugin {file}"
    typer.echo(
        f"next:\n{INSTALL}  pytest {test}\n  bench check --data {file} --root DIR\n"
        f"  bench data show {given}\n  bench run --suite smoke --data {given}"
    )
