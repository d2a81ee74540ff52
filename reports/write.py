"""The registered reports: a summary for the terminal, and files for papers and readers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from bench import BenchError, register
from bench.errors import did_you_mean
from bench.io.atomic_write import write_atomically
from bench.records.record import Record

from .aggregate import find_row
from .answer import answer_sheet, checked_budgets
from .comparison import Comparison, compare
from .further_blocks import sheet, with_note
from .scenario_tables import scenario_csv, scenario_sheet
from .scenarios import MARGIN, across
from .shared_notes import numbered, said_once
from .showable import showable
from .table_model import Sheet
from .tables import comma_separated, note_lines, sheet_latex, sheet_markdown, sheet_text
from .workloads import workload_sheets

_log = logging.getLogger("bench")

MOST_DRAWN = 24
"""Comparisons whose figures are written unless the user says otherwise. Each takes about a second,
and nobody opens the files of a hundred: the page draws accuracy along the stream and against costs.
"""


@register("report", "summary")
def summary(records: Iterable[Record]) -> str:
    """Plain-text tables of the answer, all comparisons and across scenarios, or a line that says
    there are no records. Notes of several comparisons stand once, behind their tables.
    """
    kept, told = showable(records)
    comparisons, inapplicable = _that_apply(compare(kept, checked=True))
    told = [*inapplicable, *told]
    if not comparisons and not told:
        return "No records yet: start with 'bench run'.\n"
    ends = ["".join(f"{line}\n" for line in told)] if told else []
    answer = answer_sheet(comparisons)
    sheets, shared = said_once([sheet(comparison) for comparison in comparisons])
    parts = [sheet_text(each) for each in ([] if answer is None else [answer])]
    parts += [sheet_text(each) for each in sheets]
    parts += ["\n".join(["Notes of all tables", *note_lines(numbered(shared))]) + "\n"] * bool(
        shared
    )
    parts += [sheet_text(scenario_sheet(each)) for each in across(comparisons)]
    parts += [sheet_text(each) for each in workload_sheets(comparisons)]
    return "\n\n".join([*parts, *ends])


def _that_apply(comparisons: Iterable[Comparison]) -> tuple[list[Comparison], list[str]]:
    """The comparisons with a method that applies, and lines that say why the others have none."""
    applying: list[Comparison] = []
    told: list[str] = []
    for comparison in comparisons:
        told += comparison.inapplicable
        if not comparison.inapplicable:
            applying.append(comparison)
    return applying, told


@register("report", "files")
def files(
    records: Iterable[Record],
    folder: Path,
    note: str = "",
    reference: str = "",
    margin: float = MARGIN,
    logs: Mapping[str, str] = MappingProxyType({}),
    max_energy: float | None = None,
    max_memory: float | None = None,
    jobs: int = 1,
    figure_width: str = "page",
    figures: bool | None = None,
) -> list[Path]:
    """Tables (Markdown, LaTeX, CSV), figures (PNG, PDF, SVG) and report.html in a folder.

    Names are ``table-SCENARIO-MODEL-DEVICE.md`` and the like; comparisons that differ in
    settings alone get a digest of these as well; ``scenarios-MEASURE`` stands in the place of the
    names for what is across them, ``workloads-DEVICE`` for what is across suites; ``answer.md``
    says first which method is the best. ``note`` heads
    the page and the footnotes, and says where no method applies: such comparisons have no files.
    ``reference``: a method, or the label of a row, to compare with besides source-only. ``margin``:
    difference of scores up to which two methods are tied in a scenario. ``logs``: the ends of
    failed runs' logs by the name that records have of them, for the page. ``max_energy,
    max_memory``: J of the stream and MB above the runtime, within which the answer names the best.
    ``jobs``: processes that draw. ``figure_width``: "page", or "column" for a paper's column.
    ``figures``: whether those of each comparison are written; None: of up to `MOST_DRAWN`.
    Returns the paths; files of these names are replaced, others left alone.
    Raises BenchError if no record has results, if none is of the reference, or if the folder
    cannot be written.
    """
    budgets = checked_budgets(max_energy, max_memory)
    kept, left_out = showable(records)
    for line in left_out:
        _log.warning("bench: warning: %s", line)
    comparisons, inapplicable = _that_apply(compare(kept, checked=True))
    note = "; ".join(filter(None, [note, *left_out, *inapplicable]))
    if not any(comparison.drawn for comparison in comparisons):
        why = (
            f"none of {len(kept)} records has results; see their reasons with 'bench status' and "
            "run the suite again"
            if kept
            else "there is no record yet; start with 'bench run'"
        )
        raise BenchError(f"report in {folder}: {why}")
    found = {row.label for c in comparisons if (row := find_row(c.drawn, reference))}
    if reference and not found:
        labels = sorted({row.label for c in comparisons for row in c.drawn})
        raise BenchError(
            f"reference {reference!r}: no row with results has this method; "
            f"{did_you_mean(reference, labels)}"
        )
    # Imported here: the summary on a terminal needs neither matplotlib nor the template engine.
    from .draw_all import draw_all
    from .drawing import Drawing, figure_files, styles
    from .figure_size import size_of
    from .html_page import page
    from .scenario_figure import draw_profile
    from .window_figure import ALONG, draw_along

    look, size = styles(comparisons), size_of(figure_width)
    if figures is None:
        figures = len(comparisons) <= MOST_DRAWN
        if not figures:
            told = "bench: no figure files of %d comparisons, the page has their curves; --figures"
            _log.warning(f"{told} writes them", len(comparisons))
    empty: list[list[Drawing]] = [[] for _ in comparisons]
    drawings = draw_all(comparisons, look, jobs, size) if figures else empty
    contents, drawn = dict[str, bytes](), dict[str, Drawing]()
    answer = answer_sheet(comparisons, budgets)
    if answer is not None:
        contents["answer.md"] = sheet_markdown(answer).encode()
    sheets = [sheet(comparison, reference=reference) for comparison in comparisons]
    for comparison, plain, own in zip(comparisons, sheets, drawings, strict=True):
        slug, made = comparison.slug, with_note(plain, comparison, note)
        contents[f"table-{slug}.md"] = sheet_markdown(made).encode()
        contents[f"table-{slug}.tex"] = sheet_latex(made).encode()
        contents[f"table-{slug}.csv"] = comma_separated(comparison, reference).encode()
        for drawing in own:
            drawn[f"figure-{drawing.name}-{slug}"] = drawing
    sections = []
    for name in ALONG:
        for slug, drawing in draw_along(name, comparisons, look, size).items():
            drawn[f"figure-{name}-{slug}"] = drawing
            sections.append((Sheet(drawing.title, f"{name}-{slug}", (), ()), drawing))
    for several in across(comparisons):
        label = next((name for name in several.all_methods if name in found), "")
        tables, drawing = scenario_sheet(several, label, margin), draw_profile(several, look, size)
        sections.append((tables, drawing))
        contents[f"table-{tables.slug}.md"] = sheet_markdown(tables).encode()
        contents[f"table-{tables.slug}.tex"] = sheet_latex(tables).encode()
        contents[f"table-{tables.slug}.csv"] = scenario_csv(several, margin).encode()
        drawn[f"figure-{drawing.name}-{tables.slug}"] = drawing
    workloads = workload_sheets(comparisons)
    for tables in workloads:
        contents[f"table-{tables.slug}.md"] = sheet_markdown(tables).encode()
        contents[f"table-{tables.slug}.tex"] = sheet_latex(tables).encode()
    whole = page(comparisons, sheets, look, note, sections, workloads, logs, answer, figures)
    contents |= figure_files(drawn)
    contents["report.html"] = whole.encode()
    return written(folder, contents)


def written(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name into a folder; their paths. BenchError if that is not possible."""
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise BenchError(
            f"report in {folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error
    return [folder / name for name in contents]
