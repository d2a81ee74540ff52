"""The registered report of a paper: the tables, summaries and figures of a report file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from bench import BenchError, register
from bench.errors import did_you_mean
from bench.records.cell import Cell
from bench.records.record import Record

from .aggregate import SOURCE_ONLY
from .answer import answer_sheet, checked_budgets
from .comparison import Comparison, compare
from .paper_formats import paper_csv, paper_json, paper_markdown, paper_text
from .paper_latex import paper_latex
from .paper_table import Place, named_parts, paper_table, placed, setting_titles
from .report_file import ReportFile, TableChoice, read_report_file
from .scenario_tables import scenario_sheet
from .scenarios import across
from .showable import showable
from .table_columns import column_names
from .table_model import Sheet
from .tables import sheet_latex, sheet_markdown, sheet_text
from .workloads import workload_sheets
from .write import written

_log = logging.getLogger("bench")

FORMATS = {
    "tex": paper_latex, "md": paper_markdown, "txt": paper_text, "csv": paper_csv,
    "json": paper_json,
}  # fmt: skip


class _OfACell(Protocol):
    """A record or its summary."""

    @property
    def suite(self) -> str: ...
    @property
    def cell(self) -> Cell: ...


Chosen = TypeVar("Chosen", bound=_OfACell)


@register("report", "paper")
class Paper:
    """The tables (LaTeX, Markdown, text, CSV, JSON) and figures that a report file describes.

    ``path`` None and some ``columns``: one table of all records with these columns. With both,
    ``columns`` stand in the place of the file's, and so does ``figure_width``. Raises
    BenchError for a mistake in the file.
    """

    def __init__(
        self, path: Path | None, columns: Sequence[str] = (), figure_width: str | None = None
    ) -> None:
        self._where = "--columns" if path is None else f"report file {path}"
        self._file = ReportFile() if path is None else read_report_file(path)
        self._beside = Path() if path is None else path.parent
        self._columns = list(columns)
        self._figure_width = figure_width or self._file.figure_width

    @property
    def stores(self) -> list[Path]:
        """The folders of records that the file names."""
        return [self._beside / store for store in self._file.stores or ()]

    def choose(self, records: Iterable[Chosen]) -> list[Chosen]:
        """The records that some table needs; BenchError for a choice that no record fits."""
        kept = list(records)
        file = self._file
        kept = self._of("seeds", file.seeds, kept, lambda r: {r.cell.seed})
        if file.source_draws is not None:
            draws = list(range(file.source_draws))
            kept = self._of("source_draws: draw", draws, kept, lambda r: {r.cell.source_draw})
        tables = file.chosen()
        for key, of in _CHOICES.items():
            wanted = [getattr(table, key) for table in tables]
            if any(names is None for names in wanted):
                self._of(key, [n for names in wanted for n in names or ()], kept, of)
            else:
                kept = self._of(key, [n for names in wanted for n in names], kept, of)
        return self._of_rows(tables, kept)

    def write(self, records: Iterable[Record], folder: Path, note: str = "") -> list[Path]:
        """Write the files; their paths. ``note`` stands below every table.

        ``NAME.tex``, ``.md``, ``.txt``, ``.csv`` and ``.json`` for each table, ``summary-NAME`` as
        LaTeX, Markdown and text, ``figure-KIND-SETTING`` as PNG, PDF and SVG. Equal records give
        equal bytes. Raises BenchError if a table has no row or column, if a summary or figure is
        not possible, or if the folder cannot be written.
        """
        kept, left_out = showable(records)
        for line in left_out:
            _log.warning("bench: warning: %s", line)
        comparisons = [c for c in compare(kept, checked=True) if c.drawn]
        if not comparisons:
            raise BenchError(
                f"{self._where}: none of {len(kept)} records has results; see their reasons with "
                "'bench status'"
            )
        self._check_names(comparisons)
        contents: dict[str, bytes] = {}
        drawn: dict[str, Comparison] = {}
        for choice in self._file.chosen():
            where = self._where if self._file.tables is None else f"{self._where}: {choice.name}"
            found = [c for c in compare(r for r in kept if _chosen(choice, r)) if c.drawn]
            if not found:
                raise BenchError(f"{where}: no record with results fits all of its choices")
            if self._columns:
                choice = choice.model_copy(update={"columns": self._columns})
            places = placed(found, choice.rows, comparisons, where)
            drawn |= {c.key: _only(c, places) for c in found if c.key not in drawn}
            table = paper_table(choice, found, places, self._file.names, where)
            notes = (*table.notes, *[note] * bool(note), *left_out)
            table = replace(table, notes=notes, siunitx=self._file.numbers == "siunitx")
            for suffix, write in FORMATS.items():
                contents[f"{table.name}.{suffix}"] = write(table).encode()
        shown = [c for c in drawn.values() if c.drawn]
        contents |= self._summaries(shown)
        contents |= self._figures(shown)
        return written(folder, contents)

    def _of(
        self,
        key: str,
        wanted: Sequence[object] | None,
        records: list[Chosen],
        of: Callable[[Chosen], set[Any]],
    ) -> list[Chosen]:
        """The records with one of the wanted; all of them if none is wanted."""
        if not wanted:
            return records
        known = set[Any]().union(*(of(record) for record in records))
        for name in wanted:
            if name not in known:
                cure = did_you_mean(str(name), {str(each) for each in known})
                raise BenchError(f"{self._where}: key {key!r}: no record is of {name!r}; {cure}")
        return [record for record in records if of(record) & set(wanted)]

    def _of_rows(self, tables: Sequence[TableChoice], records: list[Chosen]) -> list[Chosen]:
        """The records of the methods of rows, and of source-only, with which they are compared."""
        rows = [row.method for table in tables for row in table.rows or ()]
        known = {record.cell.method.name for record in records}
        for row in rows:
            if not any(_means(row, name) for name in known):
                cure = did_you_mean(row, known)
                raise BenchError(f"{self._where}: row {row!r}: no record is of it; {cure}")
        if any(table.rows is None for table in tables):
            return records
        kept = {n for n in known if n == SOURCE_ONLY or any(_means(row, n) for row in rows)}
        return [record for record in records if record.cell.method.name in kept]

    def _check_names(self, comparisons: Sequence[Comparison]) -> None:
        """BenchError for a key of ``names`` that names nothing in the tables."""
        known = {part for c in comparisons for part in named_parts(c)}
        known |= set(column_names(comparisons))
        for name in self._file.names:
            if name not in known:
                raise BenchError(
                    f"{self._where}: key 'names': nothing here is called {name!r}; "
                    f"{did_you_mean(name, known)} (methods are renamed in 'rows')"
                )

    def _figures(self, comparisons: Sequence[Comparison]) -> Mapping[str, bytes]:
        if not self._file.figures:
            return {}
        # Imported here: tables need no matplotlib.
        from .figure_size import size_of
        from .paper_figures import paper_figures

        size = size_of(self._figure_width)
        titles = setting_titles(comparisons, self._file.names)
        return paper_figures(self._file.figures, comparisons, titles, self._where, size)

    def _summaries(self, comparisons: Sequence[Comparison]) -> dict[str, bytes]:
        """The sheets that the file asks for, by file."""
        file = self._file
        budgets = checked_budgets(file.max_energy, file.max_memory)
        if budgets and "answer" not in file.summaries:
            raise BenchError(
                f"{self._where}: key 'max_{next(iter(budgets))}' is of the answer; add answer to "
                "'summaries'"
            )
        contents: dict[str, bytes] = {}
        for name in file.summaries:
            sheets = _SHEETS[name](comparisons, budgets)
            if not sheets:
                raise BenchError(
                    f"{self._where}: key 'summaries': {name} has nothing to show here: "
                    f"{_NO_SHEET[name]}; leave it out"
                )
            for i, sheet in enumerate(sheets):
                stem = f"summary-{name}{f'-{i + 1}' if i else ''}"
                for suffix, write in _SHEET_FORMATS.items():
                    contents[f"{stem}.{suffix}"] = write(sheet).encode()
        return contents


_SHEETS: dict[str, Callable[[Sequence[Comparison], Mapping[str, float]], list[Sheet]]] = {
    "answer": lambda found, budgets: [s for s in [answer_sheet(found, budgets)] if s is not None],
    "scenarios": lambda found, _: [scenario_sheet(each) for each in across(found)],
    "workloads": lambda found, _: workload_sheets(found, least=1),
}
"""The summaries of all settings, by name."""
_NO_SHEET = {
    "answer": "none of the methods that compete for the best has results",
    "scenarios": "there are no two streams or networks that two methods have",
    "workloads": "nothing but oracle settings",
}
_SHEET_FORMATS = {"tex": sheet_latex, "md": sheet_markdown, "txt": sheet_text}


def _means(row: str, method: str) -> bool:
    """Whether a row's name, or its label with settings, is of a method."""
    return row == method or row.startswith((f"{method} (", f"{method} ["))


def _chosen(choice: TableChoice, record: _OfACell) -> bool:
    """Whether a table shows a record."""
    asked = ((getattr(choice, key), of(record)) for key, of in _CHOICES.items())
    return all(names is None or known & set(names) for names, known in asked)


def _only(comparison: Comparison, places: Sequence[Place]) -> Comparison:
    """The comparison with the rows of the table alone."""
    rows = [place.rows[comparison.key] for place in places if comparison.key in place.rows]
    return replace(comparison, rows=tuple(rows))


_CHOICES: dict[str, Callable[[Any], set[str]]] = {
    "suites": lambda record: {record.suite},
    "streams": lambda record: {record.cell.stream.name},
    "models": lambda record: {record.cell.model_title},
    "devices": lambda record: {record.cell.device, record.cell.device_title},
}
"""What a table may choose records by."""
