"""The score against the window or the stream's speed: how much time makes a method worth it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.io.digest import digest

from .aggregate import Row
from .comparison import Comparison, settings_of_cell
from .drawing import (
    Drawing,
    Style,
    finished,
    legend,
    line_of,
    marks,
    prominent,
    repeats,
    sheet,
    tag,
    view_of,
)
from .figure_size import HIGH, PAGE, WIDE, Size


@dataclass(frozen=True)
class Along:
    """The one setting in which comparisons differ: its key in the protocol, and its words."""

    key: str
    axis: str
    title: str
    against: str


ALONG = {
    "window": Along(
        "window_s",
        "window of each domain (s of the device)",
        "against the window",
        "the seconds that a method has in each domain",
    ),
    "speed": Along(
        "interval_s",
        "time between batches (s); the stream is faster to the left",
        "against the speed of the stream",
        "the seconds from one batch of the stream to the next, which do not wait for the method",
    ),
}
"""The figures of this module by name."""


def draw_along(
    name: str,
    comparisons: Sequence[Comparison],
    look: Mapping[str, Style],
    size: Size = PAGE,
) -> dict[str, Drawing]:
    """By the slug of its first comparison a figure for those that differ in one setting alone;
    ``name``: of `ALONG`.

    Records hold no accuracy within a window, so that runs with several ``window_s`` (or, of a
    stream that does not wait, ``interval_s``) are needed: no figure of what was run with one.
    """
    along = ALONG[name]
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.drawn and value_of(comparison, along) is not None:
            groups[_without(comparison, along)].append(comparison)
    return {
        found[0].slug.removesuffix(f"-{found[0].key[:6]}"): _draw(name, found, look, size)
        for found in groups.values()
        if len(found) > 1
    }


def value_of(comparison: Comparison, along: Along) -> float | None:
    """The seconds of the setting; None where the protocol has no such limit."""
    value = comparison.cell.protocol.get(along.key)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def why_not(name: str, comparisons: Sequence[Comparison]) -> str:
    """Why there is no such figure."""
    found = sorted({v for c in comparisons if (v := value_of(c, ALONG[name])) is not None})
    told = " and ".join(f"{value:g} s" for value in found) or "no limit"
    return f"no two settings differ in {ALONG[name].key} alone, which is {told}"


def _draw(name: str, found: Sequence[Comparison], look: Mapping[str, Style], size: Size) -> Drawing:
    along = ALONG[name]

    def at(comparison: Comparison) -> float:
        return value_of(comparison, along) or 0.0

    ordered = sorted(found, key=at)
    longest = ordered[-1]
    shown = [row.label for row in prominent(longest)]
    axis, title, _, over = view_of(longest)
    every: list[Row] = []
    with sheet(6.8, size.either(4.2, 2.7), size) as (figure, axes):
        for label in shown:
            points = [
                (at(c), row, known.scaled(100))
                for c in ordered
                for row in c.drawn
                if row.label == label and (known := row.accuracy["score"]) is not None
            ]
            every += [row for _, row, _ in points]
            xs, style = [x for x, _, _ in points], look[label]
            axes.plot(xs, [known.mean for _, _, known in points], label=tag(points[-1][1], size),
                      color=style.color, marker=style.marker,
                      markersize=size.either(5, 3.5), **line_of(points[-1][1]))  # fmt: skip
            sure = [(x, known.interval) for x, _, known in points if known.n > 2 and known.interval]
            for x, (low, high) in sure:
                axes.plot([x, x], [low, high], color=style.color, linewidth=0.8)
        axes.set_xscale("log")
        ticks = [at(c) for c in ordered]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(
            xlabel=size.wrapped(along.axis, WIDE), ylabel=size.wrapped(f"{axis},\n{over}", HIGH)
        )
        legend(axes, size=size)
        place = longest.place.removesuffix(f" ({longest.variant})")
        caption = (
            f"{title}, {over}, against {along.against}, mean and 95 % interval over "
            f"{repeats(every)}. Dashed grey: no adaptation. Dotted: supervised references (†)."
            f"{marks(every)}"
        )
        return finished(figure, name, f"{title} {along.title}: {place}", caption, size)


def _without(comparison: Comparison, along: Along) -> str:
    cell = comparison.cell
    protocol = {name: value for name, value in cell.protocol.items() if name != along.key}
    place = {"device": cell.device_title, "computed": cell.computed_title}
    return digest(settings_of_cell(cell) | place | {"protocol": protocol})
