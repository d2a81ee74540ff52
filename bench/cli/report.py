"""``bench report``: tables, figures and the page from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from bench.cli.options import Plugins, StoreRoot, TunedFile, Untuned, warn
from bench.errors import BenchError
from bench.study.selection import DEFAULT_STORE, Selection, existing_store


def command(
    store: StoreRoot = DEFAULT_STORE,
    out: Annotated[Path, Option(help="Folder to write to.")] = Path("report"),
    suite: Annotated[str | None, Option(help="Only the cells of this suite as it is now.")] = None,
    plugins: Plugins = None,
    untuned: Untuned = False,
    tuned: TunedFile = None,
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (PNG, PDF) and one offline HTML page."""
    from bench import registry
    from bench.execute.api import write_report

    if suite is None and (untuned or tuned is not None):
        raise BenchError("--untuned and --tuned choose the cells of a suite: name it with --suite")
    opened = existing_store(store)
    for plugin in plugins or []:
        registry.add_plugin(plugin)
    selection = None if suite is None else Selection(suite=suite, untuned=untuned, tuned=tuned)
    for path in write_report(opened, out, selection, warn):
        typer.echo(path)
