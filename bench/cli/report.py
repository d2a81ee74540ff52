"""``bench report``: tables, figures and the page from the records."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import (
    DEFAULT_STORE,
    Plugins,
    StoreRoot,
    TunedFile,
    Untuned,
    resolve,
    warn_unreadable,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.records.record import Record


def command(
    store: StoreRoot = DEFAULT_STORE,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("report"),
    suite: Annotated[
        str | None, typer.Option("--suite", help="Only the cells of this suite as it is now.")
    ] = None,
    plugins: Plugins = None,
    untuned: Untuned = False,
    tuned: TunedFile = None,
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (PNG, PDF) and one offline HTML page."""
    from bench import registry
    from bench.records.store import Store

    if suite is None and (untuned or tuned is not None):
        raise BenchError("--untuned and --tuned choose the cells of a suite: name it with --suite")
    opened = Store(store)
    if not opened.records.is_dir():
        raise BenchError(f"--store {store}: no records there; run 'bench run' or name another")
    for plugin in plugins or []:
        registry.add_plugin(plugin)
    records = list(opened)
    note = ""
    if suite is not None:
        plan, _ = resolve(
            suite, _devices(records), None, None, None, store, plugins, untuned=untuned, tuned=tuned
        )
        wanted = {cell.identity for cell in plan.cells}
        records = [record for record in records if record.identity in wanted]
        note = f"suite {plan.suite.name}"
    paths = registry.load("report", "files")(records, out, note)
    for path in paths:
        typer.echo(path)
    warn_unreadable(opened)


def _devices(records: list[Record]) -> list[str] | None:
    """The devices of the records whose profiles still exist."""
    from bench.costs.device_profile import load_device

    found = []
    for name in sorted({record.cell.device for record in records}):
        try:
            load_device(name)
        except BenchError as error:
            typer.echo(f"bench: warning: records of device {name!r} left out: {error}", err=True)
        else:
            found.append(name)
    return found or None
