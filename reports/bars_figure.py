"""One quantity of every method on every workload, as bars beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from .aggregate import Row
from .comparison import Comparison
from .drawing import Drawing, Style, finished, grid, marks, names_of, pale, plain, repeats, sides
from .figure_size import PAGE, ROOM, Size
from .table_columns import SCORE, Column, column_of
from .table_model import decimals, reason_code

BESIDE = 4
"""Workloads in a line."""
COLUMN_BESIDE, COLUMN_LETTERS = 2, 32
"""The same in a column, and characters below all of them."""
SCALE = 100.0
"""Where the axis of a score ends, in percent; its numbers stand behind that."""


def draw_bars(
    name: str,
    comparisons: Sequence[Comparison],
    look: Mapping[str, Style],
    titles: Mapping[str, str],
    size: Size = PAGE,
) -> Drawing | None:
    """A bar for each method in each comparison, with its interval; ``name``: of the column shown.

    ``titles``: of the comparisons by key. Methods without a value have the code that says why. None
    where no method has a value.
    """
    columns = {c.key: column_of(name, c) for c in comparisons}
    names = {row.display or row.label: row for c in reversed(comparisons) for row in c.rows}
    ordered = list(dict.fromkeys(row.display or row.label for c in comparisons for row in c.rows))
    known = [
        found
        for c in comparisons
        for row in c.drawn
        if (found := columns[c.key].estimate(row)) is not None
    ]
    if not known:
        return None
    column = size.width is not None
    beside = min(COLUMN_BESIDE if column else BESIDE, len(comparisons))
    lines = math.ceil(len(comparisons) / beside)
    most = max(e.interval[1] if e.interval and e.n > 2 else e.mean for e in known)
    tags = names_of([names[each] for each in ordered], size, ROOM / lines)
    height = lines * (0.9 + (size.pitch(tags) if column else 0.22) * len(ordered))
    letters = COLUMN_LETTERS // beside
    with grid(2.2 + 2.3 * beside, height, lines, beside, size) as (figure, places):
        for i, (axes, comparison) in enumerate(zip(places, comparisons, strict=False)):
            shown = columns[comparison.key]
            _panel(axes, comparison, shown, ordered, look, most, size, letters)
            title = size.wrapped(plain(titles[comparison.key]), letters)
            axes.set_title(title, fontsize=size.small)
            beside_it = tags if i % beside == 0 else [""] * len(ordered)
            axes.set_yticks(range(len(ordered)), beside_it, fontsize=size.small)
        for axes in places[len(comparisons) :]:
            axes.set_visible(False)
        shown = columns[comparisons[0].key]
        rows = [row for c in comparisons for row in c.drawn]
        caption = (
            f"{shown.head[:1].upper()}{shown.head[1:]} ({shown.unit}), mean and 95 % interval "
            f"over {repeats(rows)}. Dashed: no adaptation. Pale: supervised references (†). n/a: "
            f"the method does not apply; –: not run.{marks(rows)}"
        )
        title = f"{shown.head[:1].upper()}{shown.head[1:]} by workload"
        called = "bars" if name == SCORE else f"bars-{name}"
        return finished(figure, called, title, caption, size)


def _panel(
    axes: Axes,
    comparison: Comparison,
    column: Column,
    ordered: Sequence[str],
    look: Mapping[str, Style],
    most: float,
    size: Size,
    letters: int,
) -> None:
    rows: dict[str, Row] = {row.display or row.label: row for row in comparison.rows}
    end = SCALE if column.name == SCORE else most
    for i, each in enumerate(ordered):
        row = rows.get(each)
        value = None if row is None or reason_code(row) else column.estimate(row)
        if row is None or value is None:
            code = reason_code(row) or column.gap(rows[each])
            axes.text(
                0.01 * end, i, code, va="center", fontsize=size.tiny, style="italic", color="0.35"
            )
            continue
        color = look[row.label].color
        bars = {"elinewidth": 0.8, "capsize": 1}
        axes.barh(i, value.mean, xerr=sides(value), height=0.72, error_kw=bars,
                  color=color if row.competes else pale(color))  # fmt: skip
        places = column.places if column.places is not None else decimals(value.mean)
        axes.text(1.03 * end, i, f"{value.mean:.{places}f}", va="center", fontsize=size.tiny)
        if row.is_source_only and value.mean > 0:
            axes.axvline(value.mean, color="0.4", linestyle="--", linewidth=0.8, zorder=0.5)
    narrow = size.width is not None
    axes.set_xlim(0, (1.5 if narrow else 1.22) * end)
    if column.name == SCORE:
        axes.set_xticks(range(0, 101, 50 if narrow else 25))
    elif narrow:
        axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    kinds = sorted({k for row in comparison.drawn for k in row.costs[column.name].kinds}) if (
        column.name in comparison.drawn[0].costs
    ) else []  # fmt: skip
    about = size.wrapped(f"{column.head} ({', '.join([column.unit, *kinds])})", letters)
    axes.set_xlabel(about, fontsize=size.small)
    axes.tick_params(axis="x", labelsize=size.small)
