"""The registered reports: a summary for the terminal, and files for papers and readers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from bench import BenchError, register
from bench.io.atomic_write import write_atomically
from bench.records.record import Record

from .comparison import compare
from .showable import showable
from .tables import comma_separated, latex, markdown, text

_log = logging.getLogger("bench")


@register("report", "summary")
def summary(records: Iterable[Record]) -> str:
    """Plain-text tables of all comparisons, or a line that says there are no records."""
    kept, left_out = showable(records)
    comparisons = compare(kept)
    if not comparisons and not left_out:
        return "No records yet: start with 'bench run'.\n"
    ends = ["".join(f"{line}\n" for line in left_out)] if left_out else []
    return "\n\n".join([*(text(comparison) for comparison in comparisons), *ends])


@register("report", "files")
def files(records: Iterable[Record], folder: Path, note: str = "") -> list[Path]:
    """Tables (Markdown, LaTeX, CSV), figures (PNG, PDF) and report.html in a folder.

    Names are ``table-SCENARIO-MODEL-DEVICE.md`` and the like; comparisons that differ in
    settings alone get a digest of these as well. ``note`` heads the page and the footnotes.
    Returns the paths; files of these names are replaced, others left alone.
    Raises BenchError if no record has results or if the folder cannot be written.
    """
    kept, left_out = showable(records)
    for line in left_out:
        _log.warning("bench: warning: %s", line)
    if left_out:
        note = "; ".join(filter(None, [note, *left_out]))
    comparisons = compare(kept)
    if not any(comparison.drawn for comparison in comparisons):
        raise BenchError(
            f"report in {folder}: none of {sum(len(c.records) for c in comparisons)} records has "
            "results; see their reasons with 'bench report' and run the suite again"
        )
    # Imported here: the summary on a terminal needs neither seaborn nor the template engine.
    from .figures import draw, styles
    from .html_page import page

    look = styles(comparisons)
    drawings = {comparison.key: draw(comparison, look) for comparison in comparisons}
    contents: dict[str, bytes] = {}
    for comparison in comparisons:
        slug = comparison.slug
        contents[f"table-{slug}.md"] = markdown(comparison, note).encode()
        contents[f"table-{slug}.tex"] = latex(comparison, note).encode()
        contents[f"table-{slug}.csv"] = comma_separated(comparison).encode()
        for drawing in drawings[comparison.key]:
            contents[f"figure-{drawing.name}-{slug}.png"] = drawing.png
            contents[f"figure-{drawing.name}-{slug}.pdf"] = drawing.pdf
    contents["report.html"] = page(comparisons, drawings, note).encode()
    try:
        for name, content in contents.items():
            write_atomically(folder / name, content)
    except OSError as error:
        raise BenchError(
            f"report in {folder}: cannot be written: {error.strerror}; choose another folder"
        ) from error
    return [folder / name for name in contents]
