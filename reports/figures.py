"""Figures of a comparison: accuracy along the stream, against energy, peak memory, and others."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from .aggregate import Row
from .breakdown_figure import draw_breakdown
from .comparison import Comparison
from .drawing import (
    LINES,
    Drawing,
    Style,
    finished,
    legend,
    marks,
    names_of,
    pale,
    prominent,
    repeats,
    sheet,
    sides,
    tag,
    view_of,
)
from .error_bars import draw_point
from .figure_size import HIGH, NARROW, PAGE, WIDE, Size
from .matrix_figure import draw_matrix
from .resampling import pareto
from .statistics import units
from .stream_figure import draw_stream
from .table_model import decimals

_FRONT = "Pareto front"
_SURE = " (%) of a method: in how many of the bootstrap draws it is on the front."
MOST = 40
"""Rows of a figure against a cost."""
_LEGEND = 22
"""Lines of a legend's column."""


def draw(comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE) -> list[Drawing]:
    """The figures that the comparison's results allow: none without results, and no trade-off
    where no energy is known. ``look`` comes from `styles`.
    """
    if not comparison.drawn:
        return []
    made = [draw_one(comparison, look, size) for draw_one in FIGURES.values()]
    return [drawing for drawing in made if drawing is not None]


def _tradeoff(
    comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE
) -> Drawing | None:
    if all(row.costs["energy"].estimate is None for row in comparison.drawn):
        return None
    axis, title, _, over = view_of(comparison)
    known, kinds, left = _with_cost(comparison, "energy")
    absent = ", ".join(tag(row) for row in comparison.drawn if row.costs["energy"].estimate is None)
    columns = math.ceil(sum(1 + tag(row).count("\n") for row in known) / _LEGEND)
    height = size.either(4.2, 2.7)
    with sheet(6.8 + 2.4 * (columns - 1), height, size) as (figure, axes):
        points: dict[str, tuple[float, float]] = {}
        energies = []
        sizes: dict[str, Any] = {"markersize": 7, "caps": 2, "width": 1}
        if len(known) > LINES:
            sizes = {"markersize": 6, "caps": 0, "width": 0.6}
        if size.width is not None:
            sizes["markersize"] = 5
        for row in known:
            energy, accuracy = row.costs["energy"].estimate, row.accuracy["score"]
            assert energy is not None
            assert accuracy is not None
            energies.append(energy.mean)
            if energy.n == 2:
                amounts = row.amounts("energy")
                reached = units({run: 100 * row.scores[run] for run in amounts})
                spent = units(amounts).values()
                axes.scatter(
                    list(spent), list(reached.values()), s=8, color=pale(look[row.label].color)
                )
            if row.competes:
                points[row.label] = (energy.mean, 100 * accuracy.mean)
            style = look[row.label]
            level = 100 * accuracy.mean
            draw_point(
                axes,
                (energy.mean, level),
                _ends(energy.mean, sides(energy)),
                _ends(level, sides(accuracy.scaled(100))),
                label=tag(row, size, _share(comparison, row)),
                color=style.color,
                marker=style.marker,
                markerfacecolor=style.color if row.competes else "white",
                **sizes,
            )
        best = pareto(points)
        front = [points[name] for name in best]
        called = {row.label: row.display or row.label for row in known}
        fronts = [called[name] for name in best]
        if front:
            # To the right edge of the data: more energy than the last point's buys nothing.
            front.append((max(energies), front[-1][1]))
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="0.3",
                      linewidth=1.0, zorder=1.5, label=_FRONT)  # fmt: skip
        _energy_axis(axes, energies)
        about = size.wrapped(f"adaptation energy of the whole stream (J, {kinds})", WIDE)
        if absent:
            about += "\n" + textwrap.fill(
                f"not drawn, energy unavailable: {absent}", size.either(60, WIDE)
            )
        axes.set(xlabel=about, ylabel=size.wrapped(f"{axis},\n{over}", HIGH))
        legend(axes, columns, last=_FRONT, size=size)
        caption = (
            f"{title}, {over}, against the energy of adapting; bars are 95 % intervals "
            f"over {repeats(known)}, within 0 to 100 % and above 0 J, of two the points. Line: "
            "Pareto front of the methods "
            f"({', '.join(fronts) or 'none'}). Hollow: "
            f"supervised references (†), which are no part of it.{marks(known)}"
            f"{_SURE * bool(comparison.front_shares)}{left}"
        )
        if absent:
            caption += f" Not drawn, energy unavailable: {absent}."
        title = comparison.metric.named_in(f"Accuracy against energy: {comparison.title}")
        return finished(figure, "tradeoff", title, caption, size)


def _ends(
    mean: float, known: tuple[tuple[float], tuple[float]] | None
) -> tuple[float, float] | None:
    """Of a bar, by what it is to both sides of the mean."""
    return None if known is None else (mean - known[0][0], mean + known[1][0])


def _share(comparison: Comparison, row: Row) -> str:
    """How often a row is on the Pareto front, for the legend; nothing where it never is."""
    share = comparison.front_shares.get(row.label, 0.0) if row.competes else 0.0
    return f" ({100 * share:.0f} %)" if share >= 0.005 else ""


def _memory(comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE) -> Drawing:
    rows, kinds, left = _with_cost(comparison, "memory")
    names = names_of(rows, size)
    with sheet(6.4, size.bars_height(names), size) as (figure, axes):
        beside = offset_copy(axes.transData, figure, size.either(9, 4), 0, "points")
        held = [cost.scaled(1e-6) for row in rows if (cost := row.costs["memory"].estimate)]
        axes.barh(
            range(len(rows)),
            [each.mean for each in held],
            height=0.7,
            color=[look[r.label].color if r.competes else pale(look[r.label].color) for r in rows],
        )
        sure = [(i, each, known) for i, each in enumerate(held) if (known := sides(each))]
        if sure:
            axes.errorbar(
                [each.mean for _, each, _ in sure],
                [i for i, _, _ in sure],
                xerr=np.hstack([known for _, _, known in sure]),
                fmt="none",
                ecolor="black",
                elinewidth=1,
                capsize=2,
            )
        ends = {i: each.mean + known[1][0] for i, each, known in sure}
        for i, (row, each) in enumerate(zip(rows, held, strict=True)):
            end = ends.get(i, each.mean)
            if each.n == 2:
                both = [value * 1e-6 for value in units(row.amounts("memory")).values()]
                axes.plot(both, [i, i], "|", color="0.2", markersize=6)
                end = max(both)
            text = f"{each.mean:.{decimals(each.mean)}f}"  # right of the interval or points
            axes.text(end, i, text, va="center", fontsize=size.number, transform=beside)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=size.either(0.12, 0.2))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(size.wrapped(f"peak memory above the runtime (MB, {kinds})", NARROW))
        return finished(
            figure,
            "memory",
            f"Peak memory: {comparison.title}",
            "Peak memory of adaptation and inference above the runtime's own share, mean and 95 % "
            f"interval over {repeats(rows)}, above 0, of two the points. Pale: supervised "
            f"references (†).{marks(rows)}{left}",
            size,
        )


def _with_cost(comparison: Comparison, name: str) -> tuple[list[Row], str, str]:
    """The rows where a cost is known, of what kinds it is, for an axis, and the end of a caption.

    Of more than `MOST` rows those with the best scores, and what is on the Pareto front: names
    could not be read, nor points told apart.
    """
    rows = [row for row in comparison.drawn if row.costs[name].estimate is not None]
    points = {
        row.label: (cost.mean, score.mean)
        for row in rows
        if row.competes and (cost := row.costs[name].estimate) and (score := row.accuracy["score"])
    }
    front = set(pareto(points)) if len(rows) > MOST else set()
    kept = {id(row) for row in prominent(comparison, MOST)}
    shown = [r for r in rows if id(r) in kept or (r.label in front and r.competes)]
    left = len(rows) - len(shown)
    told = f" {left} rows of lower scores are left out, see the table." if left else ""
    return shown, " and ".join(sorted({k for r in shown for k in r.costs[name].kinds})), told


def _energy_axis(axes: Axes, energies: Sequence[float]) -> None:
    """Logarithmic where methods differ by far; a linear stretch next to 0 keeps source-only in."""
    positive = [e for e in energies if e > 0]
    if positive and max(positive) > 30 * min(positive):
        start = 10.0 ** math.floor(math.log10(min(positive)))
        axes.set_xscale("symlog", linthresh=start, linscale=0.4)
        axes.set_xlim(-0.3 * start, 2 * max(positive))
    else:
        axes.margins(x=0.08)


FIGURES: Mapping[str, Callable[[Comparison, Mapping[str, Style], Size], Drawing | None]] = {
    "stream": draw_stream,
    "tradeoff": _tradeoff,
    "memory": _memory,
    "matrix": draw_matrix,
    "breakdown": draw_breakdown,
}
"""The figures of a comparison with results, by name; each None where the results lack it."""
