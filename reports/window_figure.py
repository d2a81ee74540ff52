"""The score against the window: how much time a method needs to be worth it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from bench.io.digest import digest

from .aggregate import Row
from .comparison import Comparison, settings_of_cell
from .drawing import Drawing, Style, finished, legend, marks, prominent, repeats, sheet, tag
from .figures import line_of, view_of


def draw_windows(
    comparisons: Sequence[Comparison], look: Mapping[str, Style]
) -> dict[str, Drawing]:
    """By the slug of its first comparison a figure for those that differ in the window alone.

    Records hold no accuracy within a window, so that runs with several ``window_s`` are needed: no
    figure of what was run with one.
    """
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        if comparison.drawn and window_of(comparison) is not None:
            groups[_without_window(comparison)].append(comparison)
    return {
        found[0].slug.removesuffix(f"-{found[0].key[:6]}"): _draw(found, look)
        for found in groups.values()
        if len(found) > 1
    }


def window_of(comparison: Comparison) -> float | None:
    """The seconds that methods have in a domain; None without a limit."""
    window = comparison.cell.protocol.get("window_s")
    return float(window) if isinstance(window, int | float) else None


def _draw(found: Sequence[Comparison], look: Mapping[str, Style]) -> Drawing:
    ordered = sorted(found, key=lambda c: window_of(c) or 0.0)
    longest = ordered[-1]
    shown = [row.label for row in prominent(longest)]
    axis, title, _, over = view_of(longest)
    every: list[Row] = []
    with sheet(6.8, 4.2) as (figure, axes):
        for label in shown:
            points = [
                (window_of(c) or 0.0, row, known.scaled(100))
                for c in ordered
                for row in c.drawn
                if row.label == label and (known := row.accuracy["score"]) is not None
            ]
            every += [row for _, row, _ in points]
            xs, style = [x for x, _, _ in points], look[label]
            axes.plot(xs, [known.mean for _, _, known in points], label=tag(points[-1][1]),
                      color=style.color, marker=style.marker, markersize=5,
                      **line_of(points[-1][1]))  # fmt: skip
            sure = [(x, known.interval) for x, _, known in points if known.n > 2 and known.interval]
            for x, (low, high) in sure:
                axes.plot([x, x], [low, high], color=style.color, linewidth=0.8)
        axes.set_xscale("log")
        ticks = [window_of(c) or 0.0 for c in ordered]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set(xlabel="window of each domain (s of the device)", ylabel=f"{axis},\n{over}")
        legend(axes)
        place = longest.place.removesuffix(f" ({longest.variant})")
        caption = (
            f"{title}, {over}, against the seconds that a method has in each domain, mean and 95 % "
            f"interval over {repeats(every)}. Dashed grey: no adaptation. Dotted: supervised "
            f"references (†).{marks(every)}"
        )
        return finished(figure, "window", f"{title} against the window: {place}", caption)


def _without_window(comparison: Comparison) -> str:
    cell = comparison.cell
    protocol = {name: value for name, value in cell.protocol.items() if name != "window_s"}
    place = {"device": cell.device_title, "computed": cell.computed_title}
    return digest(settings_of_cell(cell) | place | {"protocol": protocol})
