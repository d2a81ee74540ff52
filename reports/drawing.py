"""What all figures of a report share: sizes, files, colors and markers, names, intervals.

Drawn with matplotlib on figures of their own: no window system, no pyplot state, and the same bytes
for the same records.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .aggregate import SOURCE_ONLY, Row, clean
from .comparison import Comparison
from .error_bars import Point, PointHandler
from .figure_size import ONE_LINE, PAGE, ROOM, Size, legend_below
from .figure_style import COLORBLIND, SETTINGS, without_frame
from .lean_font import families
from .metrics import WORDS, is_timed, primary
from .statistics import Estimate, over_draws
from .table_model import name_of
from .tables import escaped_md

GREY = "#767676"
# Without the palette's grey, which is source-only's, and its yellow, which a white page swallows.
_COLOURS = [COLORBLIND[i] for i in (0, 1, 2, 3, 4, 5, 6, 9)]
_MARKERS = "osD^vPXp"

LINES = 10
"""Rows that the figure of the stream shows; more lines cannot be told apart."""


@dataclass(frozen=True)
class Style:
    """How a method looks in every figure of a report."""

    color: Any
    marker: str


@dataclass(frozen=True)
class Drawing:
    """A finished figure: what it shows in words, its width in inches, its bytes by format: png,
    pdf and svg.
    """

    name: str
    title: str
    caption: str
    width: float
    files: Mapping[str, bytes]


def styles(comparisons: Sequence[Comparison]) -> dict[str, Style]:
    """A style for every label, the same in all figures; source-only is grey.

    Beyond eight methods colors come again with another marker; those in figures of streams,
    whose markers are small, come first.
    """
    labels = {row.label for c in comparisons for row in c.rows} - {SOURCE_ONLY}
    shown = {row.label: row.supervised for c in comparisons for row in prominent(c)}
    chosen = {SOURCE_ONLY: Style(GREY, "o")}
    ordered = sorted(labels, key=lambda n: (n not in shown, shown.get(n, False), n))
    for i, label in enumerate(ordered):
        again, colour = divmod(i, len(_COLOURS))
        chosen[label] = Style(_COLOURS[colour], _MARKERS[(i + again) % len(_MARKERS)])
    return chosen


def prominent(comparison: Comparison, limit: int = LINES) -> list[Row]:
    """The rows with results that a crowded figure shows, in the order of the table.

    Source-only, the best supervised reference, and the methods with the best scores; after them
    what has seen labels.
    """
    references = [row for row in comparison.drawn if row.supervised]
    best = max(references, key=lambda row: fmean(row.scores.values()), default=None)

    def rank(row: Row) -> tuple[bool, bool, bool, float]:
        score = row.accuracy["score"]
        worse = math.inf if score is None else -score.mean
        return not row.is_source_only, row is not best, not row.competes, worse

    ordered = sorted(comparison.drawn, key=rank)
    kept = {id(row) for row in ordered[:limit]}
    return [row for row in comparison.drawn if id(row) in kept]


@contextmanager
def sheet(width: float, height: float, size: Size = PAGE) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches, or of ``size``'s own width; its settings hold inside the
    block alone.
    """
    with _settings(True, size):
        figure = _blank(size.or_column(width), height)
        axes = figure.add_subplot()
        without_frame(axes)
        yield figure, axes


@contextmanager
def grid(
    width: float, height: float, lines: int, columns: int, size: Size = PAGE
) -> Iterator[tuple[Figure, list[Axes]]]:
    """The same with small multiples, line by line, for images."""
    with _settings(False, size):
        figure = _blank(size.or_column(width), height)
        yield figure, list(figure.subplots(lines, columns, squeeze=False).flat)


@contextmanager
def _settings(has_grid: bool, size: Size) -> Iterator[None]:
    settings: Any = {**SETTINGS, "axes.grid": has_grid, **size.settings}
    with mpl.rc_context(settings):
        mpl.rcParams["font.sans-serif"] = families(mpl.rcParams["font.sans-serif"])
        yield


def _blank(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def finished(figure: Figure, name: str, title: str, caption: str, size: Size = PAGE) -> Drawing:
    """The figure in all formats. Call it inside `sheet` or `grid`."""
    png, pdf, svg = io.BytesIO(), io.BytesIO(), io.BytesIO()
    _fix_places(figure)
    # Arranged once: matplotlib would do it for each format, which takes as long as drawing.
    engine = figure.get_layout_engine()
    assert engine is not None  # all figures are made with one
    engine.execute(figure)
    figure.set_layout_engine(None)
    # Neither times nor versions in the files: equal records give equal bytes.
    figure.savefig(png, format="png", dpi=size.dpi, metadata={"Software": None})
    unset = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    figure.savefig(pdf, format="pdf", metadata=unset)
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    files = {"png": png.getvalue(), "pdf": pdf.getvalue(), "svg": svg.getvalue()}
    return Drawing(name, clean(title), clean(caption), figure.get_figwidth(), files)


def _fix_places(figure: Figure) -> None:
    """Say where the empty labels of axes are: matplotlib would measure all ticks to place them, in
    each format and twice to arrange the figure.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                axis.set_label_coords(0, 0)


class GridLines(Line2D):
    """The grid of axes as one line. Every tick that matplotlib draws a line of the grid for takes
    as long as a curve, so that axes of small multiples without numbers hide theirs.
    """

    def __init__(self, axes: Axes) -> None:
        super().__init__(
            [],
            [],
            color=mpl.rcParams["grid.color"],
            linewidth=mpl.rcParams["grid.linewidth"],
            zorder=0.5,
        )
        axes.add_artist(self)

    def draw(self, renderer: RendererBase) -> None:
        """Where the ticks are by now: how many there are depends on the size of the axes."""
        axes, gap = self.axes, math.nan
        assert axes is not None
        (left, right), (low, high) = axes.get_xbound(), axes.get_ybound()
        xs = [x for x in axes.get_xticks() if left <= x <= right]
        ys = [y for y in axes.get_yticks() if low <= y <= high]
        self.set_data(
            [*(each for x in xs for each in (x, x, gap)), *[left, right, gap] * len(ys)],
            [*[low, high, gap] * len(xs), *(each for y in ys for each in (y, y, gap))],
        )
        super().draw(renderer)


def figure_files(drawn: Mapping[str, Drawing]) -> dict[str, bytes]:
    """The files of drawings by their names without ending, and ``captions.md`` with what they
    show, for papers and readers; nothing of none.
    """
    files = {
        f"{name}.{kind}": content
        for name, drawing in drawn.items()
        for kind, content in drawing.files.items()
    }
    told = [
        f"**{name}.** {escaped_md(f'{each.title}. {each.caption}')}\n"
        for name, each in drawn.items()
    ]
    return files | ({"captions.md": "\n".join(told).encode()} if told else {})


def pale(color: Any) -> tuple[float, ...]:
    """Half way to white: transparency would let the grid through."""
    return tuple(0.5 + 0.5 * part for part in to_rgb(color))


def marks(rows: Iterable[Row]) -> str:
    """The end of a caption: what the marks of rows mean, but for that of references."""
    shown = list(rows)
    meanings = (
        (
            any(row.is_oracle for row in shown),
            " ‡ ORACLE, as the references no competitor: settings selected with the test labels.",
        ),
        (
            any(row.older_code for row in shown),
            " § OLDER CODE: the method changed since these runs and has newer ones.",
        ),
        (any(row.window for row in shown), " ¶ The window closed before the method was done."),
    )
    return "".join(text for holds, text in meanings if holds)


def repeats(rows: Iterable[Row]) -> str:
    """What intervals are over: seeds, or draws of the source model where there are three."""
    over = {over_draws(row.results) for row in rows}
    named = {True: "source draws", False: "seeds"}
    return " or ".join(named[each] for each in sorted(over)) or named[False]


def legend(axes: Axes, columns: int = 1, last: str = "", size: Size = PAGE) -> None:
    """Outside, where it covers no line; in the order of drawing, but for the label ``last``.

    It stands beside the axes in so many ``columns``, or below them where the width is given.
    """
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = sorted(handles, key=lambda label: label == last)
    shown = [handles[label] for label in ordered]
    if size.width is not None:
        legend_below(axes, shown, ordered, size)
        return
    look: dict[str, Any] = {
        "frameon": False, "borderaxespad": 0.0, "columnspacing": 1.0,
        "handler_map": {Point: PointHandler()},
    }  # fmt: skip
    axes.legend(shown, ordered, loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns, **look)


def line_of(row: Row) -> dict[str, Any]:
    """How a row's line is drawn."""
    if row.is_source_only:
        return {"linestyle": "--", "linewidth": 1.4, "zorder": 1.5}
    if row.is_oracle:
        return {"linestyle": "-.", "linewidth": 1.2}
    if row.supervised:
        return {"linestyle": ":", "linewidth": 1.2, "alpha": 0.7}
    return {"linestyle": "-", "linewidth": 1.4}


def tag(row: Row, size: Size = PAGE, more: str = "") -> str:
    """A row's name for a legend or an axis, in short lines; of a very long one both ends.

    ``more`` stands behind it.
    """
    return folded(name_of(row, caveats=True), size, more)


def folded(name: str, size: Size = PAGE, more: str = "") -> str:
    """A name in short lines; of a very long one both ends."""
    longest = size.longest
    end = min(40, longest // 2)
    if len(name) > longest:
        name = f"{name[: longest - end]}…{name[1 - end :]}"
    if size.width is None:
        return textwrap.fill(plain(name), size.letters, break_on_hyphens=False) + more
    together = more[:1] + more[1:].replace(" ", "\u00a0")  # a number stays beside its unit
    return textwrap.fill(plain(name) + together, size.letters)


def names_of(rows: Sequence[Row], size: Size, room: float = ROOM) -> list[str]:
    """The names of rows below each other: in a column in one line each, where lines would not have
    room in so many inches, unless two rows would then be called the same.
    """
    names = [tag(row, size) for row in rows]
    if size.width is None or size.pitch(names) * len(names) <= room:
        return names
    line = replace(size, letters=ONE_LINE, longest=ONE_LINE)
    short = [tag(row, line) for row in rows]
    return short if len(set(short)) == len(set(names)) else names


def sides(estimate: Estimate) -> tuple[tuple[float], tuple[float]] | None:
    """What is drawn of an interval to the left and right of its mean, within what the quantity
    can be. None of two runs or one: an interval of two says nothing that points do not.
    """
    if estimate.n < 3 or estimate.interval is None or not estimate.half_width:
        return None
    low, high = estimate.interval
    return (max(estimate.mean - low, 0.0),), (max(high - estimate.mean, 0.0),)


def plain(text: str) -> str:
    """Text in which a dollar sign starts no formula."""
    return clean(text).replace("$", r"\$")


def view_of(comparison: Comparison) -> tuple[str, str, str, str]:
    """What figures call the metric that a protocol compares by: axis, title, along, over."""
    protocol, named = comparison.cell.protocol, comparison.metric.named_in
    name = primary(protocol).name
    timed = name == "online" and is_timed(protocol)
    view = WORDS["views"]["timed" if timed else name]
    return named(view["axis"]), named(view["title"]), named(view["along"]), view["over"]
