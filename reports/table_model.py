"""What the tables of a comparison say, before any format: heads and cells."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .aggregate import Cost, Row, clean, shorten
from .comparison import Comparison
from .metrics import COSTS, Measure, columns, primary
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

UP, DOWN = "↑", "↓"
"""In heads: whether more or less is better."""

ORIGINS = {
    "published": "published", "group-harness": "group", "chosen-here": "ours", "plugin": "yours",
}  # fmt: skip
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
    """The tables of every comparison: the score beside the costs, accuracies along the stream,
    where they are known forgetting and transfer, further metrics of the task.
    """
    protocol, named = comparison.cell.protocol, comparison.metric.named_in
    levels, changes = columns(protocol)
    kinds, cost_heads = cost_kinds(comparison)
    shares = comparison.front_shares
    closed = any(row.window for row in comparison.rows)

    def accuracies(row: Row, measures: list[Measure]) -> list[str]:
        return [percent(row.accuracy[m.name], signed=m.signed) for m in measures]

    def main(row: Row) -> list[str]:
        score = reason_code(row) or percent(row.accuracy["score"])
        cells = [score, percent(row.difference, signed=True)]
        cells += [cost(row.costs[n], c.factor) for n, c in COSTS.items()]
        if shares:
            share = shares.get(row.label) if row.competes else None
            cells.append(DASH if share is None else f"{100 * share:.0f}")
        return [settings_of(row), *cells, row.seeds]

    def stream(row: Row) -> list[str]:
        window = [str(row.window or DASH)] if closed else []
        return [origin_of(row), *accuracies(row, levels), *window]

    more = comparison.further_metrics

    def further(row: Row) -> list[str]:
        return [number(row.further.get(m.name), m.unit) for m in more]

    def transfer(row: Row) -> list[str]:
        return accuracies(row, changes)

    best = f"{primary(protocol).head} {UP if comparison.metric.higher_is_better else DOWN} (%)"
    heads = ["method", "settings", best, "vs source-only", *cost_heads]
    heads += [*[FRONT_HEAD] * bool(shares), "ok runs"]
    rows = comparison.rows
    title = named("Accuracy and costs") + (f" (costs {kinds})" if kinds else "")
    made = [block(rows, title, heads, main, texts=2)]
    heads = ["method", "origin", *(m.head for m in levels), *["window closed on"] * closed]
    made.append(block(rows, named("Accuracy along the stream (%)"), heads, stream, texts=2))
    if changes:
        heads = ["method", *(m.head for m in changes)]
        made.append(block(rows, "Forgetting and transfer (%)", heads, transfer))
    if more:
        heads = ["method", *(f"{m.title} ({m.unit})" if m.unit else m.title for m in more)]
        made.append(block(rows, "Further metrics", heads, further))
    return made


def cost_kinds(comparison: Comparison) -> tuple[str, list[str]]:
    """How costs are known, where all are known alike, and the heads of their columns, which say it
    where they are not.
    """
    found = {
        name: sorted({k for row in comparison.rows for k in row.costs[name].kinds})
        for name in COSTS
    }
    every = sorted({kind for kinds in found.values() for kind in kinds})
    alike = len(every) == 1
    heads = []
    for name, column in COSTS.items():
        told = [column.unit] if alike or not found[name] else [column.unit, *found[name]]
        heads.append(f"{column.head} {DOWN} ({', '.join(told)})")
    return (every[0] if alike else ""), heads


def reason_code(row: Row | None) -> str:
    """Why a row has no results, in a word: the commonest status of its runs; a dash without a run.
    Empty where it has results.
    """
    if row is None:
        return DASH
    if row.results:
        return ""
    status = Counter(record.status for record in row.runs).most_common(1)[0][0]
    return {"unsupported": "n/a", "ok": "empty"}.get(status, status)


def name_of(row: Row, caveats: bool = False) -> str:
    """The label of a row, with marks on supervised references, oracle settings and costs that are
    lower bounds.

    With ``caveats`` also one on older code and one on closed windows.
    """
    marks = [DAGGER] * row.supervised + [DOUBLE_DAGGER] * row.is_oracle
    marks += [LOWER_BOUND] * bool(row.uncounted)
    if caveats:
        marks += [SECTION] * row.older_code + [PILCROW] * (row.window is not None)
    return clean(" ".join([row.display or row.label, *marks]))


def cost_number(estimate: Estimate | None) -> str:
    """A number with three significant digits; a dash if there is none."""
    return DASH if estimate is None else with_interval(estimate, decimals(estimate.mean), False)


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
    return DASH if estimate is None else with_interval(estimate.scaled(100.0), 1, signed)


def number(estimate: Estimate | None, unit: str) -> str:
    """A number in its unit, shares as percent; a dash if there is none."""
    if estimate is None or unit == "%":
        return percent(estimate)
    return with_interval(estimate, decimals(estimate.mean), False)


def cost(value: Cost, factor: float) -> str:
    """A cost with three significant digits; ``unavailable``, or a dash if no run is ok.

    Without an interval where all values are modelled and the spread is none at these digits: such
    costs are equal by construction, and what the model itself is wrong by is not in them.
    """
    if value.estimate is None:
        return "unavailable" if value.gaps else DASH
    return cost_number(spread_of(value, factor))


def spread_of(value: Cost, factor: float) -> Estimate | None:
    """A cost in the unit of tables, of modelled ones without an interval that would read 0."""
    known = value.estimate and value.estimate.scaled(factor)
    return without_zero_spread(known) if value.kinds == ("modelled",) else known


def without_zero_spread(known: Estimate | None) -> Estimate | None:
    """An estimate without an interval that would read 0 in its cell."""
    if known is None or known.half_width is None:
        return known
    shown = round(known.half_width, decimals(known.mean))
    return known if shown else replace(known, half_width=None)


def decimals(value: float, digits: int = 3) -> int:
    """Decimals that show ``digits`` significant digits of a value, none of them invented."""
    if value == 0.0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))


def with_interval(estimate: Estimate, places: int, signed: bool) -> str:
    """As ``58.0 ± 1.2``, ``97.3 [78.0, 99.7]`` or ``58.0``."""
    mean, *ends = interval_parts(estimate, places, signed)
    if not ends:
        return mean
    return f"{mean} ± {ends[0]}" if len(ends) == 1 else f"{mean} [{ends[0]}, {ends[1]}]"


def interval_parts(estimate: Estimate, places: int, signed: bool) -> list[str]:
    """The mean, and behind it the longer side of its interval, or both ends where the sides differ
    by much.
    """
    sign = "+" if signed else ""

    def shown(value: float, sign: str = "") -> str:
        if places > MOST_DECIMALS:
            return f"{value:{sign}.2e}"
        # Rounding first and adding zero turns a negative zero into a plain one.
        return f"{round(value, places) + 0.0:{sign}.{places}f}"

    mean, ends = estimate.mean, estimate.interval
    if ends is None:
        return [shown(mean, sign)]
    short, long = sorted((mean - ends[0], ends[1] - mean))
    inside = estimate.range.low <= mean - long and mean + long <= estimate.range.high
    if inside and long - short <= UNEVEN * long:
        return [shown(mean, sign), shown(long)]
    return [shown(mean, sign), shown(ends[0], sign), shown(ends[1], sign)]
