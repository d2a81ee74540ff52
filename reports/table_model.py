"""What the tables of a comparison say, before any format: heads and cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .aggregate import Cost, Row, clean, shorten
from .comparison import Comparison
from .metrics import COSTS, Measure, columns
from .statistics import Estimate

DAGGER = "†"
DOUBLE_DAGGER = "‡"
SECTION = "§"
"""Marks rows of older code than others of the method."""
PILCROW = "¶"
"""Marks rows whose window closed."""
LOWER_BOUND = "≥"
"""Marks rows whose costs leave operators out."""
DASH = "–"

FRONT_HEAD = "on front (%)"
"""Column of the share of bootstrap draws with a method on the front of score against energy."""

MOST_DECIMALS = 9
"""Of a cell; smaller numbers are written with an exponent."""

UNEVEN = 0.25
"""Sides of an interval that differ by less than this share of the longer one are shown as that."""

ORIGINS = {"published": "published", "group-harness": "group", "chosen-here": "ours"}
"""Provenance as records name it and as a narrow column does."""


@dataclass(frozen=True)
class Block:
    """One of a comparison's tables: ``methods`` and, set apart, the supervised references.

    The first ``texts`` columns hold text, names first, the others numbers; every row has as many
    cells as there are heads.
    """

    title: str
    heads: tuple[str, ...]
    methods: tuple[tuple[str, ...], ...]
    references: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Sheet:
    """What a format writes: tables with a title, a safe file name and the notes below them."""

    title: str
    slug: str
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]


def block(
    rows: Iterable[Row],
    title: str,
    heads: Sequence[str],
    cells: Callable[[Row], Sequence[str]],
    texts: int = 1,
) -> Block:
    """A table of rows: ``cells`` gives a row's, without its name."""
    made = [(row.supervised, (name_of(row, caveats=True), *cells(row))) for row in rows]
    methods, references = (tuple(c for s, c in made if s is which) for which in (False, True))
    return Block(title, tuple(heads), methods, references, texts)


def blocks(comparison: Comparison) -> list[Block]:
    """The tables of every comparison: accuracy, where they are known forgetting and transfer,
    further metrics of the task, costs.
    """
    levels, changes = columns(comparison.cell.protocol)
    cost_heads = ["method"]
    for name, column in COSTS.items():
        kinds = sorted({k for row in comparison.rows for k in row.costs[name].kinds})
        unit = ", ".join([column.unit, " and ".join(kinds)]) if kinds else column.unit
        cost_heads.append(f"{column.head} ({unit})")
    shares = comparison.front_shares
    if shares:
        cost_heads.append(FRONT_HEAD)
    closed = any(row.window for row in comparison.rows)
    if closed:
        cost_heads.append("window closed on")

    def accuracies(row: Row, measures: list[Measure]) -> list[str]:
        return [percent(row.accuracy[m.name], signed=m.signed) for m in measures]

    def accuracy(row: Row) -> list[str]:
        cells = [*accuracies(row, levels), percent(row.difference, signed=True), row.seeds]
        return [origin_of(row), settings_of(row), *cells]

    more = comparison.further_metrics

    def further(row: Row) -> list[str]:
        return [number(row.further.get(m.name), m.unit) for m in more]

    def transfer(row: Row) -> list[str]:
        return accuracies(row, changes)

    def costs(row: Row) -> list[str]:
        cells = [cost(row.costs[n], c.factor) for n, c in COSTS.items()]
        if shares:
            share = shares.get(row.label) if row.competes else None
            cells.append(DASH if share is None else f"{100 * share:.0f}")
        return [*cells, str(row.window or DASH)] if closed else cells

    heads = ["method", "origin", "settings", *(m.head for m in levels), "vs source-only", "ok runs"]
    rows, title = comparison.rows, comparison.metric.named_in("Accuracy (%)")
    made = [block(rows, title, heads, accuracy, texts=3)]
    if changes:
        heads = ["method", *(m.head for m in changes)]
        made.append(block(rows, "Forgetting and transfer (%)", heads, transfer))
    if more:
        heads = ["method", *(f"{m.title} ({m.unit})" if m.unit else m.title for m in more)]
        made.append(block(rows, "Further metrics", heads, further))
    return [*made, block(rows, "Costs", cost_heads, costs)]


def name_of(row: Row, caveats: bool = False) -> str:
    """The label of a row, with marks on supervised references, oracle settings and costs that are
    lower bounds.

    With ``caveats`` also one on older code and one on closed windows.
    """
    marks = [DAGGER] * row.supervised + [DOUBLE_DAGGER] * row.is_oracle
    marks += [LOWER_BOUND] * bool(row.uncounted)
    if caveats:
        marks += [SECTION] * row.older_code + [PILCROW] * (row.window is not None)
    return clean(" ".join([row.label, *marks]))


def cost_number(estimate: Estimate | None) -> str:
    """A number with three significant digits; a dash if there is none."""
    return DASH if estimate is None else _with_interval(estimate, decimals(estimate.mean), False)


def signed_points(estimate: Estimate | None) -> str:
    """A difference of shares in points."""
    return percent(estimate, signed=True)


def origin_of(row: Row) -> str:
    """Where a row's method comes from, in a word."""
    provenance = row.facts.provenance
    return shorten(clean(ORIGINS.get(provenance, provenance)), 12) or DASH


def settings_of(row: Row) -> str:
    """Where a row's settings come from, in a word; a dash if there is nothing to tune."""
    return DASH if row.settings == "none" else row.settings


def percent(estimate: Estimate | None, signed: bool = False) -> str:
    """A fraction as percent with one decimal: ``58.0 ± 1.2``; a dash if there is none."""
    return DASH if estimate is None else _with_interval(estimate.scaled(100.0), 1, signed)


def number(estimate: Estimate | None, unit: str) -> str:
    """A number in its unit, shares as percent; a dash if there is none."""
    if estimate is None or unit == "%":
        return percent(estimate)
    return _with_interval(estimate, decimals(estimate.mean), False)


def cost(value: Cost, factor: float) -> str:
    """A cost with three significant digits; ``unavailable``, or a dash if no run is ok."""
    if value.estimate is None:
        return "unavailable" if value.gaps else DASH
    return cost_number(value.estimate.scaled(factor))


def decimals(value: float, digits: int = 3) -> int:
    """Decimals that show ``digits`` significant digits of a value, none of them invented."""
    if value == 0.0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def _with_interval(estimate: Estimate, places: int, signed: bool) -> str:
    sign = "+" if signed else ""

    def shown(value: float, sign: str = "") -> str:
        if places > MOST_DECIMALS:
            return f"{value:{sign}.2e}"
        # Rounding first and adding zero turns a negative zero into a plain one.
        return f"{round(value, places) + 0.0:{sign}.{places}f}"

    mean, ends = estimate.mean, estimate.interval
    if ends is None:
        return shown(mean, sign)
    short, long = sorted((mean - ends[0], ends[1] - mean))
    inside = estimate.range.low <= mean - long and mean + long <= estimate.range.high
    if inside and long - short <= UNEVEN * long:
        return f"{shown(mean, sign)} ± {shown(long)}"
    return f"{shown(mean, sign)} [{shown(ends[0], sign)}, {shown(ends[1], sign)}]"
