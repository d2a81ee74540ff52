"""``bench docs``: the pages of the reference that are made from the code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from bench.errors import BenchError, did_you_mean

if TYPE_CHECKING:
    from bench.estimate.step_costs import StepCost

PAGES = ("cli", "suite-file", "record", "methods")
"""What can be written, the page that takes minutes last."""


def command(
    context: typer.Context,
    out: Annotated[Path, Option(help="Folder to write to.")] = Path("docs/reference"),
    only: Annotated[str | None, Option(help="Only some of cli,suite-file,record,methods.")] = None,
) -> None:
    """Write the reference pages of commands, suite files, records and methods.

    Counting what the steps of all methods cost takes minutes; the other pages take seconds.
    """
    from bench.io.atomic_write import require_folder, write_atomically

    names = [name.strip() for name in only.split(",")] if only is not None else list(PAGES)
    for name in names:
        if name not in PAGES:
            raise BenchError(f"--only {only!r}: unknown page {name!r}; {did_you_mean(name, PAGES)}")
    require_folder(out, f"--out {out}")  # better now than after minutes of counting
    for name in dict.fromkeys(names):
        file = out / f"{name}.md"
        write_atomically(file, _page(name, context).encode())
        typer.echo(file)


def _page(name: str, context: typer.Context) -> str:
    from bench.docgen import methods_page, schema_pages

    if name == "cli":
        return schema_pages.cli_page(context.find_root().command)
    if name == "suite-file":
        return schema_pages.suite_page()
    return schema_pages.record_page() if name == "record" else methods_page.page(_costs())


def _costs() -> dict[str, Sequence[StepCost] | str]:
    """The work of every method's steps, or why it was not counted."""
    from bench import registry
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
    return costs
