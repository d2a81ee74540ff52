"""Accuracy along the stream, of each method with its interval; many methods in small multiples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes

from .aggregate import Row
from .comparison import Comparison
from .course import along_the_stream, stages_of
from .drawing import (
    Drawing,
    GridLines,
    Style,
    finished,
    grid,
    legend,
    line_of,
    marks,
    pale,
    plain,
    prominent,
    repeats,
    sheet,
    tag,
    view_of,
)
from .figure_size import HIGH, PAGE, WIDE, Size
from .statistics import SHARE, estimate, units
from .table_model import name_of

TOGETHER = 6
"""Methods beside source-only whose lines can be told apart in one figure."""
BESIDE = 3
"""Small multiples in a line."""
_AXIS = "target domain, in the order of the stream"
_TICKS, _SMALL_TICKS = 40, 14
"""Domains whose names fit under one axis; of longer streams only some are named."""
_LETTERS = 50
"""Of the names of all domains, so many fit beside each other."""
_COLUMN_TICKS, _COLUMN_SMALL_TICKS, _COLUMN_LETTERS, _TITLE_LETTERS = 20, 7, 26, 15
"""The same of a figure in a column."""


def draw_stream(comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE) -> Drawing:
    """The prominent rows along the stream: in one figure, or where there are more than `TOGETHER`
    each in one of its own beside source-only.
    """
    _, title, along, _ = view_of(comparison)
    shown = prominent(comparison)
    others = [row for row in shown if not row.is_source_only]
    draw = _together if len(others) <= TOGETHER else _multiples
    kept = {id(row) for row in shown}
    left = ", ".join(name_of(row) for row in comparison.drawn if id(row) not in kept)
    caption = (
        f"{along}, mean and 95 % interval over {repeats(shown)} within 0 to 100 %, of two "
        "the points. Dashed grey: no adaptation. Dotted: supervised references (†), which see "
        f"the target labels.{marks(shown)}"
    )
    if left:
        caption += f" Left out of {len(comparison.drawn)} rows, see the table: {left}."
    return draw(comparison, look, shown, f"{title}: {comparison.title}", caption, size)


def _together(
    comparison: Comparison,
    look: Mapping[str, Style],
    shown: Sequence[Row],
    title: str,
    caption: str,
    size: Size,
) -> Drawing:
    protocol, domains = comparison.cell.protocol, comparison.domains
    stages = stages_of(protocol, domains)
    width = min(14.0, max(6.4, 3.2 + 0.32 * len(stages)))
    with sheet(width, size.either(4.2, 2.9), size) as (figure, axes):
        for row in shown:
            _course_of(axes, row, look[row.label], protocol, domains, size)
        step = math.ceil(len(stages) / size.either(_TICKS, _COLUMN_TICKS))
        axes.set_xticks(range(0, len(stages), step), [plain(d) for d in stages[::step]])
        column = size.width is not None
        letters = _COLUMN_LETTERS if column else _LETTERS
        level = len(stages) <= 5 and sum(map(len, stages)) <= letters
        turned = 90 if column else 25 if len(stages) <= 5 else 60
        axes.tick_params(axis="x", labelrotation=0 if level else turned)
        if not level and not column:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        axes.set(
            xlabel=size.wrapped(_AXIS, WIDE), ylabel=size.wrapped(view_of(comparison)[0], HIGH)
        )
        axes.set_xlim(-0.5, len(stages) - 0.5)
        legend(axes, size=size)
        return finished(figure, "stream", title, caption, size)


def _multiples(
    comparison: Comparison,
    look: Mapping[str, Style],
    shown: Sequence[Row],
    title: str,
    caption: str,
    size: Size,
) -> Drawing:
    protocol, domains = comparison.cell.protocol, comparison.domains
    stages = stages_of(protocol, domains)
    still = [row for row in shown if row.is_source_only]
    others = [row for row in shown if not row.is_source_only]
    lines = math.ceil(len(others) / BESIDE)
    step = math.ceil(len(stages) / size.either(_SMALL_TICKS, _COLUMN_SMALL_TICKS))
    height = size.either(1.55, 1.2)
    titled = size if size.width is None else replace(size, letters=_TITLE_LETTERS)
    with grid(7.2, 0.9 + height * lines, lines, BESIDE, size) as (figure, places):
        for i, (axes, row) in enumerate(zip(places, others, strict=False)):
            for each in (*still, row):
                _course_of(axes, each, look[each.label], protocol, domains, size)
            axes.sharex(places[0])
            axes.sharey(places[0])
            # With the place given: else all ticks are measured to find it.
            axes.set_title(tag(row, titled), fontsize=size.small, y=1.0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.xaxis.set_visible(i + BESIDE >= len(others))
            axes.yaxis.set_visible(i % BESIDE == 0)
            axes.tick_params(axis="x", labelrotation=90, labelsize=size.tiny)
            axes.tick_params(axis="y", labelsize=size.small)
            GridLines(axes)
        places[0].set_xticks(range(0, len(stages), step), [plain(d) for d in stages[::step]])
        places[0].set_xlim(-0.5, len(stages) - 0.5)
        for axes in places[len(others) :]:
            axes.set_visible(False)
        figure.supxlabel(_AXIS, fontsize=size.small)
        figure.supylabel(view_of(comparison)[0], fontsize=size.small)
        return finished(figure, "stream", title, caption, size)


def _course_of(
    axes: Axes,
    row: Row,
    style: Style,
    protocol: Mapping[str, Any],
    domains: Sequence[str],
    size: Size,
) -> None:
    """A row's mean along the stream, and its interval: as a band, or of two runs the points."""
    at = along_the_stream(row, protocol, domains)
    if not at:
        return
    places = sorted(at)
    found = [estimate(at[x], SHARE).scaled(100) for x in places]
    axes.plot(
        places,
        [known.mean for known in found],
        label=tag(row, size),
        color=style.color,
        marker=style.marker,
        markersize=size.either(4, 3),
        markeredgewidth=0,
        **line_of(row),
    )
    if all(known.n == 2 for known in found):
        xs = [x for x in places for _ in units(at[x])]
        ys = [100 * y for x in places for y in units(at[x]).values()]
        axes.scatter(xs, ys, s=7, color=pale(style.color), zorder=1.6)
        return
    if all(known.interval is None for known in found):
        return
    ends = [known.interval or (math.nan, math.nan) for known in found]
    axes.fill_between(
        places,
        [low for low, _ in ends],
        [high for _, high in ends],
        alpha=0.08 if row.supervised else 0.16,
        linewidth=0,
        color=style.color,
    )
