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
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bench.reports.comparison import SOURCE_ONLY, Comparison, Row
from bench.reports.layout import clean, decimals, name_of
from bench.reports.statistics import mean_ci

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 150
GREY = "#767676"
# The colour-blind safe palette of seaborn without its grey, which is source-only's, and without
# its yellow, which a white page swallows.
_COLOURS = [sns.color_palette("colorblind")[i] for i in (0, 1, 2, 3, 4, 5, 6, 9)]
_MARKERS = "osD^vPXp"
_TICKS = 40
"""Domains whose names fit under one axis; of longer streams only some are named."""


@dataclass(frozen=True)
class Style:
    """How a method looks in every figure of a report."""

    colour: Any
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


def styles(comparisons: Iterable[Comparison]) -> dict[str, Style]:
    """A style for every label, the same in all figures; source-only is grey.

    Beyond eight methods colours come again with another marker.
    """
    labels = {row.label for c in comparisons for row in c.rows} - {SOURCE_ONLY}
    chosen = {SOURCE_ONLY: Style(GREY, "o")}
    for i, label in enumerate(sorted(labels)):
        again = i // len(_COLOURS)
        marker = _MARKERS[(i + again) % len(_MARKERS)]
        chosen[label] = Style(_COLOURS[i % len(_COLOURS)], marker)
    return chosen


def draw(comparison: Comparison, look: Mapping[str, Style]) -> list[Drawing]:
    """The figures that the comparison's results allow: none without results, and no trade-off
    where no energy is known. ``look`` comes from `styles`.
    """
    if not comparison.drawn:
        return []
    drawings = [_stream(comparison, look), _memory(comparison, look)]
    if any(row.energy.estimate is not None for row in comparison.drawn):
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


# ---------------------------------------------------------------------------


def _stream(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    domains = comparison.domains
    width = min(14.0, max(6.4, 3.2 + 0.32 * len(domains)))
    with _sheet(width, 4.2) as (figure, axes):
        for row in comparison.drawn:
            known = [
                (domains.index(d.name), 100 * d.after)
                for result in row.results.values()
                for d in result.domains
            ]
            sns.lineplot(
                x=[x for x, _ in known],
                y=[y for _, y in known],
                errorbar=_interval,
                err_kws={"alpha": 0.08 if row.supervised else 0.16, "linewidth": 0},
                ax=axes,
                legend=False,
                label=_label(row),
                color=look[row.label].colour,
                marker=look[row.label].marker,
                markersize=4,
                markeredgewidth=0,
                **_line(row),
            )
        step = math.ceil(len(domains) / _TICKS)
        axes.set_xticks(range(0, len(domains), step), [_plain(d) for d in domains[::step]])
        axes.tick_params(axis="x", labelrotation=0 if len(domains) <= 5 else 60)
        if len(domains) > 5:
            for tick in axes.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        axes.set(xlabel="target domain, in the order of the stream", ylabel=_ACCURACY)
        axes.set_xlim(-0.5, len(domains) - 0.5)
        _legend(axes)
        return _finished(
            figure,
            "stream",
            f"Accuracy along the stream: {comparison.title}",
            "Accuracy on each target domain right after adaptation to it, mean and 95 % interval "
            "over seeds. Dashed grey: no adaptation. Dotted: supervised references (†), which see "
            "the target labels.",
        )


def _tradeoff(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    known = [row for row in comparison.drawn if row.energy.estimate is not None]
    absent = ", ".join(_label(row) for row in comparison.drawn if row.energy.estimate is None)
    kinds = " and ".join(sorted({kind for row in known for kind in row.energy.kinds}))
    with _sheet(6.8, 4.2) as (figure, axes):
        points: dict[str, tuple[float, float]] = {}
        energies = []
        for row in known:
            energy, accuracy = row.energy.estimate, row.after
            assert energy is not None
            assert accuracy is not None
            energies.append(energy.mean)
            if not row.supervised:
                points[row.label] = (energy.mean, 100 * accuracy.mean)
            style = look[row.label]
            axes.errorbar(
                energy.mean,
                100 * accuracy.mean,
                xerr=energy.half_width or None,
                yerr=accuracy.scaled(100).half_width or None,
                label=_label(row),
                color=style.colour,
                marker=style.marker,
                markerfacecolor="white" if row.supervised else style.colour,
                markersize=7,
                linestyle="none",
                capsize=2,
                elinewidth=1,
            )
        front = [points[name] for name in pareto(points)]
        if front:
            # To the right edge of the data: more energy than the last point's buys nothing.
            front.append((max(energies), front[-1][1]))
            axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="0.3",
                      linewidth=1.0, zorder=1.5, label=_FRONT)  # fmt: skip
        _energy_axis(axes, energies)
        about = f"adaptation energy of the whole stream (J, {kinds})"
        if absent:
            about += "\n" + textwrap.fill(f"not drawn, energy unavailable: {absent}", 60)
        axes.set(xlabel=about, ylabel=f"{_ACCURACY},\nmean over the domains")
        _legend(axes)
        caption = (
            "Accuracy after adaptation, mean over the domains, against the energy of adapting; "
            "bars are 95 % intervals over seeds. Line: Pareto front of the methods. Hollow: "
            "supervised references (†), which are no part of it."
        )
        if absent:
            caption += f" Not drawn, energy unavailable: {absent}."
        return _finished(
            figure, "tradeoff", f"Accuracy against energy: {comparison.title}", caption
        )


def _memory(comparison: Comparison, look: Mapping[str, Style]) -> Drawing:
    rows = [row for row in comparison.drawn if row.memory.estimate is not None]
    kinds = " and ".join(sorted({kind for row in rows for kind in row.memory.kinds}))
    with _sheet(6.4, 1.1 + 0.34 * len(rows)) as (figure, axes):
        for i, row in enumerate(rows):
            assert row.memory.estimate is not None
            size = row.memory.estimate.scaled(1e-6)
            bar = axes.barh(
                i,
                size.mean,
                xerr=size.half_width or None,
                height=0.7,
                color=_pale(look[row.label].colour) if row.supervised else look[row.label].colour,
                error_kw={"elinewidth": 1, "capsize": 2},
            )
            axes.bar_label(bar, [f"{size.mean:.{decimals(size.mean)}f}"], padding=4)
        axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"peak memory above the runtime (MB, {kinds})")
        return _finished(
            figure,
            "memory",
            f"Peak memory: {comparison.title}",
            "Peak memory of adaptation and inference above the runtime's own share, mean and 95 % "
            "interval over seeds. Pale: supervised references (†).",
        )


_ACCURACY = "accuracy after adaptation (%)"
_FRONT = "Pareto front"


@contextmanager
def _sheet(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
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


def _finished(figure: Figure, name: str, title: str, caption: str) -> Drawing:
    png, pdf = io.BytesIO(), io.BytesIO()
    # Neither times nor versions in the files: equal records give equal bytes.
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    figure.savefig(
        pdf, format="pdf", metadata=dict.fromkeys(("CreationDate", "Creator", "Producer"))
    )
    width = figure.get_figwidth()
    return Drawing(name, clean(title), clean(caption), width, png.getvalue(), pdf.getvalue())


def _interval(values: Sequence[float]) -> tuple[float, float]:
    estimate = mean_ci(float(v) for v in values)
    width = math.nan if estimate.half_width is None else estimate.half_width
    return estimate.mean - width, estimate.mean + width


def _pale(colour: Any) -> tuple[float, ...]:
    """Half way to white: transparency would let the grid through."""
    return tuple(0.5 + 0.5 * part for part in to_rgb(colour))


def _line(row: Row) -> dict[str, Any]:
    if row.is_source_only:
        return {"linestyle": "--", "linewidth": 1.4, "zorder": 1.5}
    if row.supervised:
        return {"linestyle": ":", "linewidth": 1.2, "alpha": 0.7}
    return {"linestyle": "-", "linewidth": 1.4}


def _energy_axis(axes: Axes, energies: Sequence[float]) -> None:
    """Logarithmic where methods differ by far; a linear stretch next to 0 keeps source-only in."""
    positive = [e for e in energies if e > 0]
    if positive and max(positive) > 30 * min(positive):
        start = 10.0 ** math.floor(math.log10(min(positive)))
        axes.set_xscale("symlog", linthresh=start, linscale=0.4)
        axes.set_xlim(-0.3 * start, 2 * max(positive))
    else:
        axes.margins(x=0.08)


def _legend(axes: Axes) -> None:
    """Outside, where it covers no line; methods first."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    ordered = sorted(handles, key=lambda label: label == _FRONT)
    axes.legend(
        [handles[label] for label in ordered],
        ordered,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        frameon=False,
        borderaxespad=0.0,
    )


def _label(row: Row) -> str:
    return textwrap.fill(_plain(name_of(row)), 28, break_on_hyphens=False)


def _plain(text: str) -> str:
    """Text in which a dollar sign starts no formula."""
    return clean(text).replace("$", r"\$")
