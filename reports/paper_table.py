"""A paper's table from a report file: which rows of which settings, what stands in their cells, and
what caption and notes say. Formats write it (`paper_formats`, `paper_latex`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.errors import BenchError, did_you_mean

from .aggregate import Row, clean
from .comparison import Comparison
from .footnotes import ORACLE, missing_runs, model_error, runs_text
from .metrics import COSTS, columns, primary
from .report_file import RowChoice, TableChoice
from .statistics import Estimate, over_draws
from .table_columns import (
    ITSELF,
    MODEL_ERROR,
    SCORE,
    UNAVAILABLE,
    UNDEFINED,
    Column,
    chosen_columns,
    column_of,
    marks_of,
    stated_errors,
)
from .table_model import DAGGER, DASH, PILCROW, SECTION, cost_kinds, name_of, reason_code

CODES = {
    DASH: "not run", "n/a": "the method does not apply", "oom": "out of memory",
    "timeout": "stopped at its time limit", "failed": "failed", "interrupted": "stopped by hand",
    UNAVAILABLE: "cost not known", UNDEFINED: "not defined under the protocol",
    ITSELF: "what the others are compared with",
}  # fmt: skip
"""What the codes in cells without a number mean."""
PACKAGE = "edge-adaptation-bench"
"""Whose version records have among those of other packages."""
CAVEATS = {
    DAGGER: "supervised reference, sees labels of the target, never marked",
    SECTION: "of older code than other runs of the method",
    PILCROW: "the window closed before the method was done",
}


@dataclass(frozen=True)
class Value:
    """A cell: a number with its interval and ``places`` decimals, or words, or a code that says why
    there is nothing. ``mark``: "best", "second" or empty.
    """

    estimate: Estimate | None = None
    places: int = 1
    signed: bool = False
    words: str = ""
    code: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Place:
    """What stands on a line: ``name`` and ``group`` of a choice, and by key of a comparison the row
    that it means there.
    """

    name: str
    group: str
    rows: Mapping[str, Row]


@dataclass(frozen=True)
class Line:
    """A line of the table. ``setting``: where settings stand below each other, which it is of."""

    name: str
    group: str
    setting: str
    rows: tuple[tuple[Comparison, Row | None], ...]
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Head:
    """Of a column. ``setting``: where settings stand beside each other, which it is of."""

    column: str
    name: str
    unit: str
    better: str
    words: bool
    setting: str


@dataclass(frozen=True)
class PaperTable:
    """A finished table. ``title``: the short caption; ``caption``: it and what the numbers are;
    ``siunitx``: whether LaTeX writes numbers with that package.
    """

    name: str
    title: str
    caption: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    siunitx: bool = False


def paper_table(
    choice: TableChoice,
    comparisons: Sequence[Comparison],
    places: Sequence[Place],
    names: Mapping[str, str],
    where: str,
) -> PaperTable:
    """The table of a choice, whose comparisons and places are these.

    Raises BenchError, which begins with ``where``, for a column that no record has.
    """
    wanted = chosen_columns(choice.columns, comparisons, where)
    titles = setting_titles(comparisons, names)
    groups = [list(comparisons)] if choice.form == "wide" else [[c] for c in comparisons]
    wide, several = len(groups[0]) > 1, len(groups) > 1
    marks = {(c.key, name): _marks(name, c, places) for c in comparisons for name in wanted}
    lines = []
    for group in groups:
        for place in places:
            rows = [(c, place.rows.get(c.key)) for c in group]
            known = [row for _, row in rows if row is not None]
            if not (known or place.name):
                continue
            values = [
                _value(column_of(n, c), row, marks[c.key, n].get(row.label if row else "", ""))
                for c, row in rows
                for n in wanted
            ]
            setting = titles[group[0].key] if several else ""
            lines.append(
                Line(_name(place, known), place.group, setting, tuple(rows), tuple(values))
            )
    heads = [
        _head(column_of(n, c), comparisons if not wide else [c], names, titles[c.key] * wide)
        for c in groups[0]
        for n in wanted
    ]
    title = clean(choice.title or "Results")
    caption = " ".join([f"{title.rstrip('.')}.", *_caption(wanted, comparisons, lines)])
    notes = _notes(lines, titles)
    return PaperTable(choice.name, title, clean(caption), tuple(heads), tuple(lines), tuple(notes))


def placed(
    comparisons: Sequence[Comparison],
    choices: Sequence[RowChoice] | None,
    everywhere: Sequence[Comparison],
    where: str,
) -> list[Place]:
    """The lines of a table: those of the choices, or all rows, the supervised references last.

    Raises BenchError for a choice that no comparison has, here or ``everywhere`` in the report, or
    of which one has several rows.
    """
    if choices is None:
        found: dict[tuple[bool, str], dict[str, Row]] = {}
        for comparison in comparisons:
            for row in comparison.rows:
                found.setdefault((row.supervised, row.label), {})[comparison.key] = row
        return [Place("", "", found[key]) for key in sorted(found, key=lambda key: key[0])]
    made = []
    for choice in choices:
        told = f"{where}: row {choice.method!r}"
        rows = {c.key: r for c in comparisons if (r := _picked(choice, c, told)) is not None}
        if not rows and not any(_picked(choice, c, told) for c in everywhere):
            every = {row.label for c in everywhere for row in c.rows}
            every |= {row.runs[0].cell.method.name for c in everywhere for row in c.rows}
            if choice.method in every:
                raise BenchError(
                    f"{told}: none has {choice.settings} settings; leave 'settings' out"
                )
            raise BenchError(f"{told}: no record is of it; {did_you_mean(choice.method, every)}")
        shown = {key: replace(row, display=choice.name or "") for key, row in rows.items()}
        made.append(Place(choice.name or choice.method, choice.group or "", shown))
    return made


def _picked(choice: RowChoice, comparison: Comparison, where: str) -> Row | None:
    """The one row that a choice means."""
    rows = [
        row for row in comparison.rows if choice.settings is None or row.settings == choice.settings
    ]
    labelled = [row for row in rows if row.label == choice.method]
    of_method = [row for row in rows if row.runs[0].cell.method.name == choice.method]
    found = labelled if len(labelled) == 1 else of_method
    if len(found) > 1:
        told = ", ".join(repr(name_of(row)) for row in found[:6])
        raise BenchError(
            f"{where}: {clean(comparison.title)} has {len(found)} rows of it ({told}); name the "
            "label of one, or add a key 'settings', as tuned or default"
        )
    return found[0] if found else None


def setting_titles(comparisons: Sequence[Comparison], names: Mapping[str, str]) -> dict[str, str]:
    """By key what tells comparisons apart, in words: of suite, stream, model, device and further
    settings the parts that differ, under the names that the file gives them.
    """
    parts = {
        c.key: [
            *(names.get(each, each) for each in named_parts(c)),
            c.cell.computed_title.strip(" ·"),
            c.variant,
        ]
        for c in comparisons
    }
    differing = [i for i in range(6) if len({p[i] for p in parts.values()}) > 1]
    without = [i for i in differing if i != 1]
    # A suite and its stream mostly say the same: the suite is enough where it tells all apart.
    if 0 in differing and len({tuple(p[i] for i in without) for p in parts.values()}) == len(parts):
        differing = without
    return {
        key: clean(" · ".join(p[i] for i in differing if p[i])) or key[:6]
        for key, p in parts.items()
    }


def named_parts(comparison: Comparison) -> tuple[str, str, str, str]:
    """Suite, stream, model and device: what a file can choose and rename."""
    cell = comparison.cell
    return comparison.suite, cell.stream.name, cell.model_title, cell.device_title


def _marks(name: str, comparison: Comparison, places: Sequence[Place]) -> dict[str, str]:
    rows = [place.rows[comparison.key] for place in places if comparison.key in place.rows]
    return marks_of(column_of(name, comparison), rows)


def _value(column: Column, row: Row | None, mark: str) -> Value:
    if row is not None and column.words is not None:
        return Value(words=column.words(row))
    code = reason_code(row)
    if row is None or code:
        return Value(code=code)
    known = column.estimate(row)
    if known is None:
        return Value(code=column.gap(row))
    return Value(known, column.digits(known.mean), column.signed, mark=mark)


def _name(place: Place, rows: Sequence[Row]) -> str:
    """The name of a line, with the marks of its rows."""
    if not rows:
        return clean(place.name)
    told = [name_of(replace(row, display=place.name or row.label), caveats=True) for row in rows]
    return max(told, key=len)  # of rows on several devices the one with most marks


def _head(column: Column, of: Sequence[Comparison], names: Mapping[str, str], setting: str) -> Head:
    """The head of a column; a score that is another metric in other settings is called so."""
    titles = {c.metric.title for c in of}
    name = "score" if column.name == SCORE and len(titles) > 1 else column.head
    unit = column.unit
    if column.name in COSTS:
        kinds = {kind for c in of for row in c.rows for kind in row.costs[column.name].kinds}
        unit = ", ".join([unit, *sorted(kinds)]) if any(not cost_kinds(c)[0] for c in of) else unit
    shown = names.get(column.name, name)
    return Head(column.name, shown, unit, column.better, column.words is not None, setting)


# --- what stands around the numbers -----------------------------------------


def _caption(
    wanted: Sequence[str], comparisons: Sequence[Comparison], lines: Sequence[Line]
) -> list[str]:
    """What the numbers are: measure, runs, interval, marks, device and kind of costs, code."""
    rows = [row for line in lines for _, row in line.rows if row is not None and row.results]
    told = []
    if SCORE in wanted:
        for metric, meaning in dict.fromkeys(map(_score_of, comparisons)):
            told.append(f"{metric}: {meaning}, mean over the target domains.")
    told += _repeats(rows)
    costs = any(name in COSTS for name in wanted)
    stated = any(max(stated_errors(n, rows)) > MODEL_ERROR for n in COSTS if n in wanted)
    if any(value.mark for line in lines for value in line.values):
        told.append(
            "Best in bold, second underlined, within a setting and only where the 95 % interval of "
            "the paired difference to every method behind it excludes 0"
            + (
                f", and modelled costs differ by more than {100 * MODEL_ERROR:g} %"
                f"{', or the error that their profile states' * stated}."
                if costs
                else "."
            )
        )
    elif any(value.estimate for line in lines for value in line.values):
        told.append("Nothing is marked as best: no method is distinguishable from all others.")
    suites = list(dict.fromkeys(c.suite for c in comparisons))
    models = list(dict.fromkeys(c.cell.model_title for c in comparisons))
    devices = list(dict.fromkeys(c.cell.device_title for c in comparisons))
    for what, found in (("Suite", suites), ("Model", models), ("Device", devices)):
        told.append(f"{what}{'s' * (len(found) > 1)}: {', '.join(found)}.")
    if costs:
        kinds = sorted(
            {k for row in rows for n in COSTS if n in wanted for k in row.costs[n].kinds}
        )
        if kinds:
            told.append(f"Costs are {' and '.join(kinds)}.")
        if "modelled" in kinds:
            told.append("± of modelled costs is their spread over runs, not the model's error.")
            told += filter(None, [model_error(rows)])
    return [*told, _code(rows)]


def _score_of(comparison: Comparison) -> tuple[str, str]:
    protocol = comparison.cell.protocol
    measure = primary(protocol)
    words = {m.name: m.meaning for group in columns(protocol) for m in group}
    title = comparison.metric.title
    return title[:1].upper() + title[1:], words.get(measure.name, measure.meaning)


def _repeats(rows: Sequence[Row]) -> list[str]:
    """Seeds, draws and what the interval is over."""
    runs = {run for row in rows for run in row.results}
    if not runs:
        return []
    if len(runs) == 1:
        return [f"One run of each method ({runs_text(runs)}): no interval."]
    over = "draws of the source model" if over_draws(runs) else "seeds"
    if len({run.draw for run in runs}) == 1:
        over += " on one draw of the source model"
    told = f"Mean over {runs_text(runs)}; ±: half of the 95 % Student-t interval over {over}"
    uneven = ", or [from, to] where its sides are uneven"
    fewer = any(len(row.results) < len(runs) for row in rows)
    return [f"{told}{uneven}{'; some methods have fewer runs' * fewer}."]


def _code(rows: Sequence[Row]) -> str:
    """Version and commit of the benchmark that made the records."""
    versions, commits = dict[str, None](), dict[str, None]()
    for row in rows:
        for run in row.runs:
            packages = run.environment.get("packages")
            known = packages.get(PACKAGE) if isinstance(packages, dict) else None
            versions[str(known or "unknown")] = None
            commits[str(run.environment.get("commit") or "unknown")[:10]] = None
    return f"Benchmark {', '.join(sorted(versions))}, commit {', '.join(sorted(commits))}."


def _notes(lines: Sequence[Line], titles: Mapping[str, str]) -> list[str]:
    """What codes and marks mean, and why runs have no results."""
    codes = dict.fromkeys(value.code for line in lines for value in line.values if value.code)
    notes = []
    known = [(c, row) for line in lines for c, row in line.rows if row is not None]
    if any(row.is_oracle for _, row in known):
        notes.append(ORACLE)
    if codes:
        notes.append("; ".join(f"{code}: {CODES.get(code, code)}" for code in codes) + ".")
    marks = [f"{m} {what}" for m, what in CAVEATS.items() if any(m in li.name for li in lines)]
    notes += [f"{'; '.join(marks)}."] * bool(marks)
    for comparison, row in known:
        where = f"{titles[comparison.key]}: " if len(titles) > 1 else ""
        notes += [f"{where}{line}" for line in missing_runs(row)]
    return [clean(note) for note in dict.fromkeys(notes)]
