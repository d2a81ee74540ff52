"""What the page's script shows beyond the tables: curves, costs, runs and their settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.colors import to_hex

from bench.records.record import Record

from .aggregate import Row, clean, fate, shorten, show_all, usable
from .answer import UNITS, WITHIN, Ranked, least, within_cells, within_heads
from .breakdown_figure import mean_seconds
from .comparison import Comparison
from .course import along_the_stream, stages_of
from .drawing import Style, marks, prominent, repeats, view_of
from .footnotes import model_error
from .metrics import COSTS
from .statistics import SHARE, Estimate, estimate
from .table_model import name_of, settings_of

Point = list[float | None]
"""A mean and the ends of its interval, which are None where there are fewer than 3 repeats."""


def page_data(comparisons: Sequence[Comparison], look: Mapping[str, Style]) -> dict[str, Any]:
    """JSON-able: styles by label, and of each comparison by the id of its section what figures
    draw and which runs stand behind each row.

    Scores are in percent; costs in the units of `metrics.COSTS`.
    """
    return {
        "look": {
            label: {"color": to_hex(style.color), "marker": style.marker}
            for label, style in look.items()
        },
        "within": {
            name: {
                "title": f"{unit} of {COSTS[name].head}",
                "heads": within_heads([name]),
                "kinds": " and ".join(sorted({k for c in comparisons for k in _kinds(c, name)})),
            }
            for name, unit in UNITS.items()
        },
        "withinNote": WITHIN,
        "comparisons": [_comparison(each) for each in comparisons],
    }


def captions(comparison: Comparison) -> dict[str, str]:
    """What stands below the page's figures; none of a trade-off where no cost is known."""
    _, title, along, over = view_of(comparison)
    rows = comparison.drawn
    common = f"mean and, from three on, 95 % interval over {repeats(rows)}."
    told = {
        "stream": f"{along}, {common} Dashed: no adaptation. Dotted: supervised references "
        f"(†), which see the target labels.{marks(rows)}"
    }
    if any(cost.estimate is not None for row in rows for cost in row.costs.values()):
        told["tradeoff"] = (
            f"{title}, {over}, against a cost, {common} Line: Pareto front of the methods shown. "
            f"Hollow: supervised references (†), which are no part of it.{marks(rows)} "
            f"{model_error(rows)}"
        ).rstrip()
    if any(results.matrix for row in rows for results in row.results.values()):
        told["matrix"] = (
            "Rows: after learning. Columns: tested on. Stronger colors are higher; mean over runs. "
            "Below the diagonal: what is kept; above it: what is not learned yet."
        )
    return {name: clean(text) for name, text in told.items()}


def _comparison(comparison: Comparison) -> dict[str, Any]:
    protocol, domains = comparison.cell.protocol, comparison.domains
    axis, title, _, _ = view_of(comparison)
    shown = {id(row) for row in prominent(comparison)}
    kinds = {name: _kinds(comparison, name) for name in COSTS}
    return {
        "id": comparison.slug,
        "stages": [clean(stage) for stage in stages_of(protocol, domains)],
        "axis": axis,
        "title": title,
        "costs": [
            {"name": name, "title": f"{column.head} ({column.unit}, {' and '.join(kinds[name])})"}
            for name, column in COSTS.items()
            if kinds[name]
        ],
        "rows": [_row(row, comparison, id(row) in shown) for row in comparison.rows],
        "place": clean(comparison.place),
        "within": _within(comparison),
    }


def _within(comparison: Comparison) -> dict[str, Any]:
    """By cost what is said where nothing is within a budget, and from which amount on which answer;
    empty where no method competes.
    """
    ranked = Ranked(comparison)
    if not ranked.rows:
        return {}
    return {
        name: {
            "none": least(comparison, [name]),
            "steps": [[limit, within_cells(a, [name])] for limit, a in ranked.steps(name)],
        }
        for name in UNITS
    }


def _kinds(comparison: Comparison, cost: str) -> list[str]:
    return sorted({kind for row in comparison.drawn for kind in row.costs[cost].kinds})


def _row(row: Row, comparison: Comparison, shown: bool) -> dict[str, Any]:
    places = along_the_stream(row, comparison.cell.protocol, comparison.domains)
    score = row.accuracy["score"]
    return {
        "name": name_of(row, caveats=True),
        "label": row.label,
        "supervised": row.supervised,
        "competes": row.competes,
        "source": row.is_source_only,
        "shown": shown,
        "course": [
            [place, *_point(estimate(values, SHARE), 100.0)]
            for place, values in sorted(places.items())
        ],
        "score": None if score is None else _point(score, 100.0),
        "costs": {
            name: _point(row.costs[name].estimate, column.factor)
            for name, column in COSTS.items()
            if row.costs[name].estimate is not None
        },
        "settings": settings_of(row),
        "changed": clean(show_all(row.facts.changed)),
        "kinds": _kinds_of_work(row),
        "paper": clean(row.facts.paper or ""),
        "runs": [_run(record) for record in row.runs],
        **_matrix(row),
    }


def _kinds_of_work(row: Row) -> str:
    """What the adaptation time goes into; empty where that is one kind or not known."""
    seconds = mean_seconds(row) or {}
    if len(seconds) < 2:
        return ""
    parts = sorted(seconds.items(), key=lambda each: -each[1])
    return ", ".join(f"{shorten(clean(name), 40)} {value:.3g} s" for name, value in parts[:12])


def _matrix(row: Row) -> dict[str, Any]:
    """The mean over runs of the accuracy on each stage after each, in percent, where known."""
    found = [results.matrix for results in row.results.values() if results.matrix is not None]
    if not found:
        return {}
    means = [[fmean(m[i][j] for m in found) for j, _ in enumerate(line)]
             for i, line in enumerate(found[0])]  # fmt: skip
    return {"matrix": [[round(100 * value, 1) for value in line] for line in means]}


def _run(record: Record) -> list[Any]:
    """Source draw, seed, what became of it, score in percent (None without), record, log."""
    score = None
    if usable(record) and record.results is not None:
        score = _short(100 * record.results.score)
    told = "ok" if usable(record) else clean(f"{fate(record)}: {record.reason}")
    return [record.cell.source_draw, record.cell.seed, told, score, record.identity, record.log]


def _point(known: Estimate | None, factor: float) -> Point:
    assert known is not None
    scaled = known.scaled(factor)
    ends: Sequence[float | None] = (None, None)
    if known.n >= 3 and scaled.interval is not None:
        ends = scaled.interval
    return [_short(scaled.mean), *(None if end is None else _short(end) for end in ends)]


def _short(value: float) -> float:
    """Five significant digits: more than a screen shows."""
    return float(f"{value:.5g}")
