"""``bench docs``: the pages of the reference that are made from the code."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.estimate.step_costs import StepCost

PAGES = ("cli", "suite-file", "record", "methods")
"""What can be written, the page that takes minutes last."""


def command(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path(
        "docs/reference"
    ),
    only: Annotated[
        str | None,
        typer.Option("--only", help="Only these pages, as a,b: cli, suite-file, record, methods."),
    ] = None,
) -> None:
    """Write the reference pages of commands, suite files, records and methods.

    Counting what the steps of all methods cost takes minutes; the other pages take seconds.
    """
    names = _chosen(only)
    _require_folder(out)
    from bench.io.atomic_write import write_atomically

    make: dict[str, Callable[[], str]] = {
        "cli": lambda: _cli(context),
        "suite-file": _suite_file,
        "record": _record,
        "methods": _methods,
    }
    for name in names:
        file = out / f"{name}.md"
        write_atomically(file, make[name]().encode())
        typer.echo(file)


def _chosen(only: str | None) -> list[str]:
    if only is None:
        return list(PAGES)
    names = [name.strip() for name in only.split(",")]
    for name in names:
        if name not in PAGES:
            raise BenchError(f"--only {only!r}: unknown page {name!r}; {did_you_mean(name, PAGES)}")
    return list(dict.fromkeys(names))


def _cli(context: typer.Context) -> str:
    from bench.docgen.cli_page import page

    return page(context.find_root().command)


def _suite_file() -> str:
    from bench.docgen.schema_pages import suite_page

    return suite_page()


def _record() -> str:
    from bench.docgen.schema_pages import record_page

    return record_page()


def _methods() -> str:
    from bench import registry
    from bench.docgen.methods_page import page
    from bench.errors import Unsupported
    from bench.estimate.step_costs import embedded_costs

    names = list(registry.entries("method"))
    costs: dict[str, Sequence[StepCost] | str] = {}
    for i, name in enumerate(names, start=1):
        typer.echo(f"[{i}/{len(names)}] {name}", err=True)
        try:
            costs[name] = embedded_costs(name)
        except Unsupported as why:
            costs[name] = str(why)
    return page(costs)


def _require_folder(out: Path) -> None:
    """Better now than after minutes of counting."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"--out {out}: {error.strerror}; name another folder") from error
    if not os.access(out, os.W_OK):
        raise BenchError(f"--out {out}: cannot be written; name a folder, as docs/reference")
