"""How wide figures are, and what follows for their text, legends and files.

On a page of their own figures are as wide as they need. In a column of a paper they have its width,
text of 7 to 8 points, and their legends below the data.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from bench.errors import BenchError, did_you_mean

from .error_bars import Point, PointHandler

T = TypeVar("T")

COLUMN_INCHES = 3.5
"""A column of IEEE's transactions and conferences, 252 points (IEEE Author Center, "Resolution and
size": one column 3.5 inches). Those of ACM (3.33) and ICML (3.25) shrink 7 points to 6.5 at least.
"""
SMALL = 7
"""Points of the smallest text in a column."""
LINE = 1.2
"""Height of a line of text in sizes of its font."""
ONE_LINE = 22
"""Characters of names of many rows."""
ROOM = 7.2
"""Inches that the rows of a figure may take in a column."""
WIDE, HIGH, NARROW = 42, 36, 30
"""Characters in a column of labels: below axes, beside them, and below bars with names."""
FEW = 10
"""Bars up to which they are thick."""


@dataclass(frozen=True)
class Size:
    """How wide figures are.

    Attributes
    ----------
    width : of every figure in inches; None: as wide as it needs
    small, tiny, number : of fonts, in points or by names of matplotlib; None: as axes' labels
    dpi : of PNG
    letters, longest : characters of a line of a name, and of a whole name
    legend_columns : beside each other below the data, at most
    pair : points of a number in a cell of a matrix of pairs
    color_bar : where the bar of colors stands
    settings : of matplotlib, besides those that all figures share
    """

    width: float | None = None
    small: float | str = "small"
    tiny: float | str = "x-small"
    number: float | None = None
    dpi: int = 150
    letters: int = 28
    longest: int = 110
    legend_columns: int = 4
    pair: float = 6
    color_bar: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def either(self, page: T, column: T) -> T:
        """What a figure on a page has, or one in a column."""
        return page if self.width is None else column

    def or_column(self, inches: float) -> float:
        """The width of a figure that needs so much."""
        return inches if self.width is None else self.width

    def wrapped(self, text: str, letters: int) -> str:
        """A text that in a column has lines of so many characters; its own lines are kept."""
        if self.width is None:
            return text
        lines = []
        for line in text.split("\n"):
            before, bracket, unit = line.rpartition(" (")
            apart = bracket and len(line) > letters and line.endswith(")")  # a unit stays whole
            lines += [before, f"({unit}"] if apart else [line]
        return "\n".join(textwrap.fill(line, letters) for line in lines)

    def pitch(self, names: Iterable[str]) -> float:
        """Inches that each of rows with these names takes in a column."""
        lines = max((1 + name.count("\n") for name in names), default=1)
        return (LINE * lines * SMALL + 2) / 72

    def bars_height(self, names: Sequence[str]) -> float:
        """Inches of a figure with a bar for each name."""
        if self.width is None:
            return 1.1 + (0.34 if len(names) <= FEW else 0.24) * len(names)
        return 0.75 + (self.pitch(names) + (0.05 if len(names) <= FEW else 0.0)) * len(names)


PAGE = Size()
COLUMN = Size(
    width=COLUMN_INCHES,
    small=7,
    tiny=7,
    number=7,
    dpi=300,
    letters=20,
    longest=40,
    pair=7,
    color_bar={"location": "top", "shrink": 0.8, "aspect": 30, "pad": 0.02},
    settings={
        "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.title_fontsize": 7,
        "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
        "axes.linewidth": 0.8, "xtick.major.size": 3, "ytick.major.size": 3,
        "axes.labelpad": 3.5, "xtick.major.pad": 2.0, "ytick.major.pad": 2.0,
    },
)  # fmt: skip
SIZES = {"page": PAGE, "column": COLUMN}


def size_of(name: str) -> Size:
    """A size by its name; BenchError names those there are."""
    if name not in SIZES:
        raise BenchError(f"--figure-width {name!r}: is no width; {did_you_mean(name, SIZES)}")
    return SIZES[name]


def legend_below(axes: Axes, handles: list[Any], labels: list[str], size: Size) -> None:
    """A legend below the axes with as many columns as fit; the figure grows by its height."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    room = 72 * figure.get_figwidth() - 6
    look: dict[str, Any] = {
        "frameon": False, "borderaxespad": 0.2, "columnspacing": 1.0, "handlelength": 1.6,
        "handletextpad": 0.5, "labelspacing": 0.3, "handler_map": {Point: PointHandler()},
    }  # fmt: skip
    for columns in range(size.legend_columns, 0, -1):
        legend: Legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, **look
        )
        canvas = figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        box = legend.get_window_extent(canvas.get_renderer())
        points = 72 / figure.dpi
        if box.width * points <= room or columns == 1:
            figure.set_figheight(figure.get_figheight() + box.height * points / 72)
            return
        legend.remove()
