"""The columns that a report file may name: what each shows of a row, in which unit, and whether
more or less of it is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.errors import BenchError, did_you_mean
from bench.records.record import Metric

from .aggregate import Row
from .comparison import Comparison
from .metrics import COSTS, MEASURES, columns, primary
from .statistics import ANY, Estimate, Run, distinguishable, paired_difference
from .table_model import DOWN, UP, decimals, origin_of, settings_of, spread_of

SCORE = "accuracy"
"""The column of what methods are compared by, whatever metric that is."""
TEXTS: Mapping[str, tuple[str, Callable[[Row], str]]] = {
    "runs": ("ok runs", lambda row: row.seeds),
    "settings": ("settings", settings_of),
    "origin": ("origin", origin_of),
}
"""Columns of words."""
USUAL = (SCORE, "difference", "energy", "memory", "runs")
"""The columns of a table that names none."""
LOWER = ("forgetting",)
NEITHER = ("adapted",)
"""Measures of which less is better, and those of which neither is."""

MODEL_ERROR = 0.15
"""Share by which modelled costs must differ to be distinguishable: what a calibrated profile may be
off by in the median (`bench device check`), or what the profile states where that is more. Their
spread over runs does not hold it.
"""

UNAVAILABLE, UNDEFINED, ITSELF = "unav.", "n/d", "ref."
"""Codes of cells of rows with results: a cost that is not known, a measure that the protocol does
not give, and the difference of a row to itself.
"""


@dataclass(frozen=True)
class Column:
    """One column in one setting.

    ``better``: an arrow, empty where neither more nor less is better. ``places``: decimals of
    numbers, None for three significant digits.
    """

    name: str
    head: str
    unit: str = ""
    better: str = ""
    signed: bool = False
    places: int | None = 1
    estimate: Callable[[Row], Estimate | None] = lambda row: None
    values: Callable[[Row], dict[Run, float]] = lambda row: {}
    words: Callable[[Row], str] | None = None

    def digits(self, value: float) -> int:
        """Decimals of a number in this column."""
        return decimals(value) if self.places is None else self.places

    def gap(self, row: Row) -> str:
        """Why a row with results has nothing here."""
        if self.name == "difference" and row.is_source_only:
            return ITSELF
        return UNAVAILABLE if self.name in COSTS else UNDEFINED


def column_names(comparisons: Iterable[Comparison]) -> list[str]:
    """All names that are known for these comparisons."""
    further = [m.name for c in comparisons for m in c.further_metrics]
    measures = [name for name in MEASURES if name != "score"]
    return list(dict.fromkeys([SCORE, *measures, "difference", *COSTS, *further, *TEXTS]))


def chosen_columns(
    names: Sequence[str] | None, comparisons: Sequence[Comparison], where: str
) -> list[str]:
    """The names, or what the records have of the usual ones; BenchError for one that is unknown,
    given twice or shown by none.
    """
    if names is None:
        return [name for name in USUAL if _shown(name, comparisons)]
    known = column_names(comparisons)
    for i, name in enumerate(names):
        if name not in known:
            raise BenchError(f"{where}: column {name!r} is unknown; {did_you_mean(name, known)}")
        if name in names[:i]:
            raise BenchError(f"{where}: column {name!r} is given twice; remove one")
        if _shown(name, comparisons):
            continue
        given = sorted({m for c in comparisons for m in _given(c)})
        raise BenchError(
            f"{where}: column {name!r}: no record has it; leave it out (of accuracies these have "
            f"{', '.join(given)})"
        )
    return list(names)


def column_of(name: str, comparison: Comparison) -> Column:
    """A column by its name, as it is in one comparison."""
    metric = comparison.metric
    up = UP if metric.higher_is_better else DOWN
    if name in TEXTS:
        head, words = TEXTS[name]
        return Column(name, head, words=words)
    if name == SCORE:
        return _measure(Column(name, metric.title, "%", up), "score")
    if name == "difference":
        return Column(
            name, "vs source-only", "points", up, signed=True,
            estimate=lambda row: row.difference and row.difference.scaled(100.0),
            values=lambda row: {run: 100 * score for run, score in row.scores.items()},
        )  # fmt: skip
    if name in COSTS:
        cost = COSTS[name]
        return Column(
            name, cost.head, cost.unit, DOWN, places=None,
            estimate=lambda row: spread_of(row.costs[name], cost.factor),
            values=lambda row: {run: v * cost.factor for run, v in row.amounts(name).items()},
        )  # fmt: skip
    if name in MEASURES:
        measure = MEASURES[name]
        better = "" if name in NEITHER else DOWN if name in LOWER else up
        unit = "points" if measure.signed or measure.difference else "%"
        head = measure.head.removesuffix(" (%)")
        return _measure(Column(name, head, unit, better, measure.signed), name)
    return _further(name, {m.name: m for m in comparison.further_metrics}.get(name, Metric()))


def marks_of(column: Column, rows: Sequence[Row]) -> dict[str, str]:
    """By label "best" and "second" of the rows of one block, where they are distinguishable.

    The best is marked where the interval of its paired difference to every other row excludes 0,
    so that it is distinguishable from each; the second where the best is marked and the second is
    distinguishable from all behind it. Rows that do not compete, and source-only, are never marked.
    """
    found = []
    for row in rows:
        known = column.estimate(row)
        if known is not None and row.competes and not row.is_source_only:
            found.append((known.mean, row))
    if not column.better or len(found) < 2:
        return {}
    found.sort(key=lambda pair: -pair[0] if column.better == UP else pair[0])
    ranked = [row for _, row in found]
    marks: dict[str, str] = {}
    for place, word in enumerate(("best", "second")):
        behind = ranked[place + 1 :]
        if not behind or not all(_distinguishable(column, ranked[place], row) for row in behind):
            break
        marks[ranked[place].label] = word
    return marks


def _distinguishable(column: Column, a: Row, b: Row) -> bool:
    """Whether two rows differ by the paired interval, and modelled costs by more than their model's
    error.
    """
    own, other = column.values(a), column.values(b)
    if not distinguishable(paired_difference(own, other, ANY)):
        return False
    if column.name in COSTS and "modelled" in a.costs[column.name].kinds:
        low, high = sorted(fmean(values.values()) for values in (own, other))
        return high - low > max(MODEL_ERROR, *stated_errors(column.name, (a, b))) * high
    return True


def stated_errors(name: str, rows: Iterable[Row]) -> list[float]:
    """How far profiles state that a modelled cost is off, 0 where they do not."""
    key = "time" if name == "inference" else name
    runs = (results.costs.profile_error for row in rows for results in row.results.values())
    return [0.0, *(getattr(error, key, None) or 0.0 for error in runs)]


def _measure(column: Column, name: str) -> Column:
    """A column of accuracies, which rows have as fractions."""
    measure = MEASURES[name]

    def estimate(row: Row) -> Estimate | None:
        known = row.accuracy[name]
        return known and known.scaled(100.0)

    def values(row: Row) -> dict[Run, float]:
        found = {run: measure.value(results) for run, results in row.results.items()}
        return {run: 100 * value for run, value in found.items() if value is not None}

    return Column(
        column.name, column.head, column.unit, column.better, column.signed,
        estimate=estimate, values=values,
    )  # fmt: skip


def _further(name: str, metric: Metric) -> Column:
    factor = 100.0 if metric.unit == "%" else 1.0

    def estimate(row: Row) -> Estimate | None:
        known = row.further.get(name)
        return known and known.scaled(factor)

    def values(row: Row) -> dict[Run, float]:
        found = {run: results.further(name) for run, results in row.results.items()}
        return {run: factor * value for run, value in found.items() if value is not None}

    return Column(
        name, metric.title, metric.unit, UP if metric.higher_is_better else DOWN,
        places=1 if metric.unit == "%" else None, estimate=estimate, values=values,
    )  # fmt: skip


def _shown(name: str, comparisons: Sequence[Comparison]) -> bool:
    """Whether a column has anything to show."""
    made = [(column_of(name, c), c) for c in comparisons]
    return any(
        column.words or any(column.estimate(row) is not None for row in c.drawn)
        for column, c in made
    )


def _given(comparison: Comparison) -> list[str]:
    """Accuracies that the comparison's protocol gives."""
    protocol = comparison.cell.protocol
    levels, changes = columns(protocol)
    return [primary(protocol).name, *(m.name for m in (*levels, *changes))]
