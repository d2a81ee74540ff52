"""Figures of a comparison: accuracy along the stream, accuracy against energy, peak memory.

Drawn with seaborn on figures of their own: no window system, no pyplot state, and the same bytes
for the same records.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bench.records.record import Results

from .aggregate import SOURCE_ONLY, Row, clean
from .comparison import Comparison
from .metrics import WORDS, has_matrix, is_online, is_timed, primary
from .statistics import Estimate, mean_ci
from .table_model import decimals, name_of

DPI = 150
GREY = "#767676"
# The color-blind safe palette of seaborn without its grey, which is source-only's, and without
# its yellow, which a white page swallows.
_COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 5, 6, 9)]
_MARKERS = "osD^vPXp"

LINES = 10
"""Rows that the figure of the stream shows; more lines cannot be told apart."""
_FRONT = "Pareto front"
_TICKS = 40
"""Domains whose names fit under one axis; of longer streams only some are named."""
_LETTERS = 50
"""Of the names of all domains, so many fit beside each other."""
_LEGEND = 22
"""Lines of a legend's column."""


@dataclass(frozen=True)
class Style:
    """How a method looks in every figure of a report."""

    color: Any
    marker: str


@dataclass(frozen=True)
class Drawing:
    """A finished figure: what it shows in words, its width in inches, its bytes as PNG and PDF."""

    name: str
    title: str
    caption: str
    width: float
    png: bytes
    pdf: bytes


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
    best = next((row for row in comparison.drawn if row.supervised), None)

    def rank(row: Row) -> tuple[bool, bool, bool]:
        return not row.is_source_only, row is not best, not row.competes

    ordered = sorted(comparison.drawn, key=rank)
    kept = {id(row) for row in ordered[:limit]}
    return [row for row in comparison.drawn if id(row) in kept]


def view_of(comparison: Comparison) -> tuple[str, str, str, str]:
    """What figures call the metric that a protocol compares by: axis, title, along, over."""
    protocol, named = comparison.cell.protocol, comparison.metric.named_in
    name = primary(protocol).name
    timed = name == "online" and is_timed(protocol)
    view = WORDS["views"]["timed" if timed else name]
    return named(view["axis"]), named(view["title"]), named(view["along"]), view["over"]


@contextmanager
def sheet(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of this size in inches; its settings hold inside the block alone."""
    settings = {"axes.edgecolor": "0.3", "grid.color": "0.9"}
    with (
        sns.plotting_context("paper"),
        sns.axes_style("whitegrid", rc=settings),
        mpl.rc_context({"pdf.fonttype": 42}),
    ):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        sns.despine(ax=axes)
        yield figure, axes


def finished(figure: Figure, name: str, title: str, caption: str) -> Drawing:
    """The figure in both formats. Call it inside `sheet`."""
    png, pdf = io.BytesIO(), io.BytesIO()
    # Neither times nor versions in the files: equal records give equal bytes.
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    unset = dict.fromkeys(("CreationDate", "Creator", "Producer"))
    figure.savefig(pdf, format="pdf", metadata=unset)
    width = figure.get_figwidth()
    return Drawing(name, clean(title), clean(caption), width, png.getvalue(), pdf.getvalue())


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


def legend(axes: Axes, columns: int = 1, last: str = "") -> None:
    """Outside, where it covers no line; in the order of drawing, but for the label ``last``."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = sorted(handles, key=lambda label: label == last)
    shown = [handles[label] for label in ordered]
    look: dict[str, Any] = {"frameon": False, "borderaxespad": 0.0, "columnspacing": 1.0}
    axes.legend(shown, ordered, loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns, **look)


def tag(row: Row) -> str:
    """A row's name for a legend or an axis, in short lines."""
    return textwrap.fill(plain(name_of(row, caveats=True)), 28, break_on_hyphens=False)


def bounded(
    estimate: Estimate, low: float = 0.0, high: float = math.inf
) -> tuple[tuple[float], tuple[float]] | None:
    """What is drawn of an interval to the left and right of its mean: nothing beyond what the
    quantity can be. None if there is no interval.
    """
    width = estimate.half_width
    if not width:
        return None
    return (max(min(width, estimate.mean - low), 0.0),), (
        max(min(width, high - estimate.mean), 0.0),
    )


def plain(text: str) -> str:
    """Text in which a dollar sign starts no formula."""
    return clean(text).replace("$", r"\$")


def draw(comparison: Comparison, look: Mapping[str, Style]) -> list[Drawing]:
    """The figures that the comparison's results allow: none without results, and no trade-off
    where no energy is known. ``look`` comes from `styles`.
    """
    if not comparison.drawn:
        return []
    drawings = [_stream(comparison, look), _memory(comparison, look)]
    if any(row.costs["energy"].estimate is not None for row in comparison.drawn):
        drawings.insert(1, _tradeoff(comparison, look))
    return drawings


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (cost, benefit) that no other beats in both, by rising cost.

    Of points that are equal the first by name stays.
    """
    front: list[str] = []
    best = -math.inf
    for name, (_, benefit) in sorted(points.items(), key=lambda p: (p[1][0], -p[1][1], p[0])):
        if benefit > best:
            front.append(name)
            best = benefit
    return front


def _stream(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    protocol = comparison.cell.protocol
    axis, title, along, _ = view_of(comparison)
    domains = comparison.domains
    stages = ["source", *domains] if has_matrix(protocol) else domains
    shown = prominent(comparison)
    width = min(14.0, max(6.4, 3.2 + 0.32 * len(stages)))
    with sheet(width, 4.2) as (figure, axes):
        for row in shown:
            known = [p for r in row.results.values() for p in _course(r, protocol, domains)]
            if not known:
                continue
            sns.lineplot(
                x=[x for x, _ in known],
                y=[100 * y for _, y in known],
                errorbar=_percent_interval,
                err_kws={"alpha": 0.08 if row.supervised else 0.16, "linewidth": 0},
                ax=axes,
                legend=False,
                label=tag(row),
                color=look[row.label].color,
                marker=look[row.label].marker,
                markersize=4,
                markeredgewidth=0,
                **_line(row),
            )
        step = math.ceil(len(stages) / _TICKS)
        axes.set_xticks(range(0, len(stages), step), [plain(d) for d in stages[::step]])
        level = len(stages) <= 5 and sum(map(len, stages)) <= _LETTERS
        axes.tick_params(axis="x", labelrotation=0 if level else 25 if len(stages) <= 5 else 60)
        if not level:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        axes.set(xlabel="target domain, in the order of the stream", ylabel=axis)
        axes.set_xlim(-0.5, len(stages) - 0.5)
        legend(axes)
        kept = {id(row) for row in shown}
        left = ", ".join(name_of(row) for row in comparison.drawn if id(row) not in kept)
        caption = (
            f"{along}, mean and 95 % interval over seeds, drawn within 0 to 100 %. Dashed grey: "
            "no adaptation. Dotted: supervised references (†), which see the target "
            f"labels.{marks(shown)}"
        )
        if left:
            caption += f" Left out of {len(comparison.drawn)} rows, see the table: {left}."
        return finished(figure, "stream", f"{title}: {comparison.title}", caption)


def _course(
    results: Results, protocol: Mapping[str, Any], domains: Sequence[str]
) -> Iterator[tuple[int, float]]:
    """What is drawn of one run: positions and accuracies along the stream."""
    matrix, online = has_matrix(protocol), is_online(protocol)
    if matrix and results.matrix is not None:
        yield 0, results.matrix[0][0]
    for i, domain in enumerate(results.domains):
        other = results.seen(i + 1) if matrix else domain.online
        value = other if matrix or online else domain.after
        if value is not None:
            yield domains.index(domain.name) + matrix, value


def _tradeoff(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    axis, title, _, over = view_of(comparison)
    known, kinds = _with_cost(comparison, "energy")
    absent = ", ".join(tag(row) for row in comparison.drawn if row.costs["energy"].estimate is None)
    columns = math.ceil(sum(1 + tag(row).count("\n") for row in known) / _LEGEND)
    with sheet(6.8 + 1.7 * (columns - 1), 4.2) as (figure, axes):
        points: dict[str, tuple[float, float]] = {}
        energies = []
        sizes: dict[str, Any] = {"markersize": 7, "capsize": 2, "elinewidth": 1}
        if len(known) > LINES:
            sizes = {"markersize": 6, "capsize": 0, "elinewidth": 0.6}
        for row in known:
            energy, accuracy = row.costs["energy"].estimate, row.accuracy["score"]
            assert energy is not None
            assert accuracy is not None
            energies.append(energy.mean)
            if row.competes:
                points[row.label] = (energy.mean, 100 * accuracy.mean)
            style = look[row.label]
            axes.errorbar(
                energy.mean,
                100 * accuracy.mean,
                xerr=bounded(energy),
                yerr=bounded(accuracy.scaled(100), high=100.0),
                label=tag(row),
                color=style.color,
                marker=style.marker,
                markerfacecolor=style.color if row.competes else "white",
                linestyle="none",
                **sizes,
            )
        best = pareto(points)
        front = [points[name] for name in best]
        if front:
            # To the right edge of the data: more energy than the last point's buys nothing.
            front.append((max(energies), front[-1][1]))
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="0.3",
                      linewidth=1.0, zorder=1.5, label=_FRONT)  # fmt: skip
        _energy_axis(axes, energies)
        about = f"adaptation energy of the whole stream (J, {kinds})"
        if absent:
            about += "\n" + textwrap.fill(f"not drawn, energy unavailable: {absent}", 60)
        axes.set(xlabel=about, ylabel=f"{axis},\n{over}")
        legend(axes, columns, last=_FRONT)
        caption = (
            f"{title}, {over}, against the energy of adapting; bars are 95 % intervals "
            "over seeds, drawn within 0 to 100 % and above 0 J. Line: Pareto front of the methods "
            f"({', '.join(best) or 'none'}). Hollow: "
            f"supervised references (†), which are no part of it.{marks(known)}"
        )
        if absent:
            caption += f" Not drawn, energy unavailable: {absent}."
        title = comparison.metric.named_in(f"Accuracy against energy: {comparison.title}")
        return finished(figure, "tradeoff", title, caption)


def _memory(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    rows, kinds = _with_cost(comparison, "memory")
    with sheet(6.4, 1.1 + (0.34 if len(rows) <= LINES else 0.24) * len(rows)) as (figure, axes):
        for i, row in enumerate(rows):
            assert row.costs["memory"].estimate is not None
            size = row.costs["memory"].estimate.scaled(1e-6)
            bar = axes.barh(
                i,
                size.mean,
                xerr=bounded(size),
                height=0.7,
                color=look[row.label].color if row.competes else pale(look[row.label].color),
                error_kw={"elinewidth": 1, "capsize": 2},
            )
            axes.bar_label(bar, [f"{size.mean:.{decimals(size.mean)}f}"], padding=4)
        axes.set_yticks(range(len(rows)), [tag(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"peak memory above the runtime (MB, {kinds})")
        return finished(
            figure,
            "memory",
            f"Peak memory: {comparison.title}",
            "Peak memory of adaptation and inference above the runtime's own share, mean and 95 % "
            f"interval over seeds, drawn above 0. Pale: supervised references (†).{marks(rows)}",
        )


def _with_cost(comparison: Comparison, name: str) -> tuple[list[Row], str]:
    """The rows where a cost is known, and of what kinds it is, for an axis."""
    rows = [row for row in comparison.drawn if row.costs[name].estimate is not None]
    return rows, " and ".join(sorted({kind for row in rows for kind in row.costs[name].kinds}))


def _percent_interval(values: Sequence[float]) -> tuple[float, float]:
    estimate = mean_ci(float(v) for v in values)
    drawn = bounded(estimate, high=100.0)
    if drawn is None:
        width = math.nan if estimate.half_width is None else 0.0
        return estimate.mean - width, estimate.mean + width
    (left,), (right,) = drawn
    return estimate.mean - left, estimate.mean + right


def _energy_axis(axes: Axes, energies: Sequence[float]) -> None:
    """Logarithmic where methods differ by far; a linear stretch next to 0 keeps source-only in."""
    positive = [e for e in energies if e > 0]
    if positive and max(positive) > 30 * min(positive):
        start = 10.0 ** math.floor(math.log10(min(positive)))
        axes.set_xscale("symlog", linthresh=start, linscale=0.4)
        axes.set_xlim(-0.3 * start, 2 * max(positive))
    else:
        axes.margins(x=0.08)


def _line(row: Row) -> dict[str, Any]:
    if row.is_source_only:
        return {"linestyle": "--", "linewidth": 1.4, "zorder": 1.5}
    if row.is_oracle:
        return {"linestyle": "-.", "linewidth": 1.2}
    if row.supervised:
        return {"linestyle": ":", "linewidth": 1.2, "alpha": 0.7}
    return {"linestyle": "-", "linewidth": 1.4}
