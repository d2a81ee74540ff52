"""``bench report``: tables, figures and the page from the records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from bench.cli.options import (
    DataRoot,
    Plugins,
    Seeds,
    SourceDraws,
    StoreRoot,
    TunedFile,
    Untuned,
    method_names,
    warn,
)
from bench.errors import BenchError
from bench.study.selection import DEFAULT_STORE, Selection, existing_store


def command(
    store: StoreRoot = DEFAULT_STORE,
    out: Annotated[Path, Option(help="Folder to write to.")] = Path("report"),
    suite: Annotated[str | None, Option(help="Only the cells of this suite as it is now.")] = None,
    methods: Annotated[str | None, Option(help="Only these methods, as a,b.")] = None,
    seeds: Seeds = None,
    source_draws: SourceDraws = None,
    device: Annotated[list[str] | None, Option(help="Only this device; repeatable.")] = None,
    data_root: DataRoot = None,
    plugins: Plugins = None,
    untuned: Untuned = False,
    tuned: TunedFile = None,
    reference: Annotated[
        str, Option(help="Compare with this method too, besides no adaptation.")
    ] = "",
    margin: Annotated[
        float | None,
        Option(help="Points up to which two methods are tied in a scenario. Default: 1."),
    ] = None,
    default_beside_tuned: Annotated[
        bool,
        Option("--default-beside-tuned", help="Runs of the suite with default settings too."),
    ] = False,
    max_energy: Annotated[
        float | None, Option(help="Name the best method within so many J of adaptation too.")
    ] = None,
    max_memory: Annotated[
        float | None, Option(help="And within so many MB of memory above the runtime.")
    ] = None,
    with_store: Annotated[
        list[Path] | None, Option(help="Read the records of this store too; repeatable.")
    ] = None,
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (PNG, PDF) and one offline HTML page."""
    from bench.execute.api import write_report
    from bench.study.suite import parse_seeds

    if suite is None and (untuned or tuned is not None):
        raise BenchError("--untuned and --tuned choose the cells of a suite: name it with --suite")
    opened = existing_store(store)
    selection = Selection(
        suite=suite or "",
        devices=tuple(device or ()),
        methods=None if methods is None else method_names(methods),
        seeds=None if seeds is None else tuple(parse_seeds(seeds)),
        source_draws=source_draws,
        data_root=data_root,
        untuned=untuned,
        tuned=tuned,
        plugins=tuple(plugins or ()),
    )
    paths = write_report(
        opened,
        out,
        selection,
        warn,
        reference=reference,
        margin=margin,
        default_beside_tuned=default_beside_tuned,
        max_energy=max_energy,
        max_memory=max_memory,
        further=[existing_store(folder) for folder in with_store or ()],
    )
    for path in paths:
        typer.echo(path)
