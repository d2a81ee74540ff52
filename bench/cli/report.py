"""``bench report``: tables, figures and the page from the records."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

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


class Width(StrEnum):
    """Of figures."""

    PAGE = "page"
    COLUMN = "column"


class Format(StrEnum):
    """Of what is written."""

    REPORT = "report"
    EVAL_EVER = "eval-ever"


def command(
    context: typer.Context,
    file: Annotated[
        Path | None, Argument(help="Report file (.yaml): its tables and figures alone.")
    ] = None,
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
    columns: Annotated[
        str | None, Option(help="One table of these columns, as accuracy,energy; or FILE's.")
    ] = None,
    max_energy: Annotated[
        float | None, Option(help="Name the best method within so many J of adaptation too.")
    ] = None,
    max_memory: Annotated[
        float | None, Option(help="And within so many MB of memory above the runtime.")
    ] = None,
    jobs: Annotated[
        int | None, Option(min=1, help="Processes that draw figures. Default: the cores.")
    ] = None,
    figure_width: Annotated[
        Width | None, Option(help="Of figures: page, or a paper's column of 3.5 in. Default: page.")
    ] = None,
    figures: Annotated[
        bool | None,
        Option(
            "--figures/--no-figures",
            help="Write figures of each comparison. Default: of up to 24; the page has curves.",
        ),
    ] = None,
    format_: Annotated[
        Format, Option("--format", help="report, or eval-ever: a folder of JSON, as 'store export'")
    ] = Format.REPORT,
    organization: Annotated[str, Option(help="Who made the runs, for eval-ever.")] = "",
    with_store: Annotated[
        list[Path] | None, Option(help="Read the records of this store too; repeatable.")
    ] = None,
) -> None:
    """Write tables (Markdown, LaTeX, CSV), figures (PNG, PDF, SVG) and one offline HTML page.

    With a report file: the tables and figures of a paper that it describes.
    """
    from bench import registry
    from bench.execute.api import write_report
    from bench.execute.base import available_cores
    from bench.study.suite import parse_seeds

    if suite is None and (untuned or tuned is not None):
        raise BenchError("--untuned and --tuned choose the cells of a suite: name it with --suite")
    stores, layout = [store], None
    if format_ is Format.REPORT and organization:
        raise BenchError("--organization is for --format eval-ever; leave it out")
    if format_ is not Format.REPORT:
        if any(each is not None for each in (file, columns, figure_width, figures)):
            raise BenchError(
                f"--format {format_}: has no tables or figures; leave the file, --columns, "
                "--figure-width and --figures out"
            )
        layout = registry.load("report", format_.value)(organization)
    if file is not None or columns is not None:
        layout = registry.load("report", "paper")(file, _names(columns), figure_width)
        given = context.get_parameter_source("store")
        if layout.stores and (given is None or given.name != "COMMANDLINE"):
            stores = layout.stores
    opened, *more = [existing_store(folder) for folder in (*stores, *(with_store or ()))]
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
        further=more,
        layout=layout,
        jobs=jobs or available_cores(),
        figure_width=figure_width or Width.PAGE,
        figures=figures,
    )
    for path in paths:
        typer.echo(path)


def _names(columns: str | None) -> tuple[str, ...]:
    """The columns that ``a,b`` names; BenchError if it names none."""
    names = tuple(name.strip() for name in (columns or "").split(",") if name.strip())
    if columns is not None and not names:
        raise BenchError(f"--columns {columns!r}: names no column; write accuracy,energy")
    return names
