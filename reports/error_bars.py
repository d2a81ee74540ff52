"""Points with error bars, of few artists: `Axes.errorbar` makes seven of a point and eight of its
entry in a legend, and each of them takes time in every format.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerLine2D
from matplotlib.lines import Line2D
from matplotlib.transforms import Transform

Ends = tuple[float, float]
BARS = 2.0
"""How far in front bars are; points are a little further in front."""


class Point(Line2D):
    """A marker of a point that has bars, as legends show it."""

    bars: tuple[float, float, bool, bool]
    """Line width of the bars, size of their caps, and whether there are any along x and y."""


def draw_point(
    axes: Axes,
    at: Ends,
    x: Ends | None,
    y: Ends | None,
    *,
    width: float,
    caps: float,
    **look: Any,
) -> None:
    """A point with bars between the ends ``x`` and ``y``; caps are as far to both sides, in points.

    ``look``: of the marker, with its ``color`` and ``label``.
    """
    for line in _bars(at, x, y, width, caps, look["color"]):
        axes.add_line(line)
    point = Point([at[0]], [at[1]], linestyle="none", zorder=BARS + 0.1, **look)
    point.bars = width, caps, x is not None, y is not None
    axes.add_line(point)
    axes.autoscale_view()


def _bars(
    at: Ends, x: Ends | None, y: Ends | None, width: float, caps: float, color: Any
) -> list[Line2D]:
    xs, ys, lines = list[float](), list[float](), []
    look: dict[str, Any] = {
        "color": color, "linestyle": "none", "markersize": 2 * caps, "zorder": BARS,
    }  # fmt: skip
    if x is not None:
        xs, ys = [*x, math.nan], [at[1], at[1], math.nan]
        lines += [Line2D(x, [at[1], at[1]], marker="|", **look)]
    if y is not None:
        xs, ys = [*xs, at[0], at[0]], [*ys, *y]
        lines += [Line2D([at[0], at[0]], y, marker="_", **look)]
    if not lines:
        return []
    bars = Line2D(xs, ys, color=color, linewidth=width, solid_capstyle="butt", zorder=BARS)
    return [bars, *(lines if caps else [])]


class PointHandler(HandlerLine2D):
    """Shows points in a legend with bars of half its font's size to each side."""

    def create_artists(
        self,
        legend: Legend,
        orig_handle: Any,
        xdescent: float,
        ydescent: float,
        width: float,
        height: float,
        fontsize: float,
        trans: Transform,
    ) -> list[Any]:
        _, places = self.get_xdata(legend, xdescent, ydescent, width, height, fontsize)
        x, y, side = float(np.asarray(places)[0]), (height - ydescent) / 2, 0.5 * fontsize
        thick, caps, along_x, along_y = orig_handle.bars
        artists = _bars(
            (x, y),
            (x - side, x + side) if along_x else None,
            (y - side, y + side) if along_y else None,
            thick,
            caps,
            orig_handle.get_color(),
        )
        point = Line2D([x], [y])
        self.update_prop(point, orig_handle, legend)
        for artist in (*artists, point):
            artist.set_transform(trans)
        return [*artists, point]
