"""The performance profile of methods across scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .aggregate import SOURCE_ONLY
from .drawing import GREY, LINES, Drawing, Style, finished, folded, legend, plain, sheet
from .figure_size import HIGH, PAGE, WIDE, Size
from .metrics import MEASURES
from .scenarios import Across
from .table_model import DAGGER

POINTS = 400
"""Levels at which a profile is computed."""


def draw_profile(made: Across, look: Mapping[str, Style], size: Size = PAGE) -> Drawing:
    """For each method the share of runs at most so many points below the scenario's best method.

    ``look`` comes from `styles`. Of many methods source-only and the best are drawn.
    """
    shown = made.methods[:LINES]
    widest = max(
        best - min(values)
        for method in shown
        for best, values in zip(made.best, made.strata(method), strict=True)
    )
    levels = np.linspace(0.0, max(1.05 * widest, 0.01), POINTS)
    with sheet(6.4, size.either(3.8, 2.6), size) as (figure, axes):
        for method in shown:
            style = look.get(method, Style(GREY, "o"))
            reference = made.supervised(method)
            name = f"{method} {DAGGER}" if reference else method
            shares = made.profile(method, levels.tolist())
            axes.step(
                100 * levels,
                [100 * share for share in shares],
                where="post",
                label=plain(name) if size.width is None else folded(name, size),
                color=style.color,
                linestyle="--" if method == SOURCE_ONLY else ":" if reference else "-",
                linewidth=1.4,
                marker=style.marker,
                markersize=size.either(4, 3),
                markevery=_where_it_rises(shares),
            )
        axes.set(
            xlabel=size.wrapped("points below the best method of the scenario", WIDE),
            ylabel=size.wrapped(f"runs within that (%), {MEASURES[made.measure].head}", HIGH),
            ylim=(-2, 104),
        )
        axes.margins(x=0.01)
        legend(axes, size=size)
        left = len(made.methods) - len(shown)
        caption = (
            f"Performance profile over {len(made.scenarios)} scenarios: share of runs whose score "
            "is at most so many points below the mean of the scenario's best method that sees no "
            "target labels; every scenario counts alike. Higher and further left is better; at 0 "
            "stand runs as good as the best."
        )
        if left:
            caption += f" {left} methods of lower mean are left out."
        return finished(figure, "profile", "Performance profile", caption, size)


def _where_it_rises(shares: Sequence[float]) -> list[int]:
    """The first level and those after a step: markers there tell lines of one color apart."""
    return [i for i, share in enumerate(shares) if i == 0 or share > shares[i - 1]]
