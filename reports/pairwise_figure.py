"""Every method against every other, as a matrix of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import numpy as np

from .comparison import Comparison
from .drawing import Drawing, Style, finished, grid, marks, names_of, prominent
from .figure_size import PAGE, Size
from .statistics import distinguishable, paired_difference

MOST = 30
"""Methods that a matrix shows."""
SIDE = 2.2
"""Inches of a matrix in a column."""
COLUMN_NUMBERED = 8
"""Methods up to which its cells have numbers."""


def draw_pairwise(
    comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE
) -> Drawing | None:
    """``D[i][j]``: mean paired difference of the score, row minus column, in points.

    Colored where its 95 % interval excludes 0, so never with fewer than 3 pairs. None with one
    method.
    """
    import seaborn as sns  # for its colors: takes longer than drawing

    rows = sorted(
        prominent(comparison, _most(comparison, size)), key=lambda row: -fmean(row.scores.values())
    )
    n = len(rows)
    if n < 2:
        return None
    scores = [row.scores for row in rows]
    means, told = np.full((n, n), math.nan), np.full((n, n), math.nan)
    for i in range(n):
        for j in range(n):
            known = None if i == j else paired_difference(scores[i], scores[j])
            if known is not None:
                means[i, j] = 100 * known.mean
                if distinguishable(known):
                    told[i, j] = means[i, j]
    most = np.nanmax(np.abs(told)) if not np.isnan(told).all() else 1.0
    side = 0.36 * n
    names = names_of(rows, size, SIDE)
    height, numbered = side + 1.9, size.width is None or n <= COLUMN_NUMBERED
    if size.width is not None:
        height = size.width + 0.45  # names take as much to the left as below, and the colors above
    with grid(side + 3.6, height, 1, 1, size) as (figure, (axes,)):
        colors = sns.color_palette("vlag_r", as_cmap=True)
        image = axes.imshow(told, cmap=colors, vmin=-most, vmax=most)
        for (i, j), value in np.ndenumerate(means):
            if numbered and not math.isnan(value):
                sure = not math.isnan(told[i, j])
                dark = sure and abs(value) > 0.75 * most
                axes.text(
                    j, i, f"{value + 0.0:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}",
                    ha="center", va="center", fontsize=size.pair,
                    color="white" if dark else "black" if sure else "0.55",
                )  # fmt: skip
        axes.set_xticks(range(n), names, rotation=90, fontsize=size.small)
        axes.set_yticks(range(n), names, fontsize=size.small)
        label = comparison.metric.named_in("accuracy: row minus column (points)")
        figure.colorbar(image, ax=axes, label=label, **{"shrink": 0.8, **size.color_bar})
        left = "" if n == len(comparison.drawn) else f" {n} prominent rows."
        caption = comparison.metric.named_in(
            "Best first. Mean paired difference of the accuracy, row minus column, in points. "
            "Colored: its 95 % interval excludes 0, each pair by itself, not corrected for their "
            f"number. {'Grey' if numbered else 'White'}: not distinguishable, or fewer than 3 "
            f"pairs.{left}{marks(rows)}"
        )
        title = f"Each method against each: {comparison.title}"
        return finished(figure, "pairwise", title, caption, size)


def _most(comparison: Comparison, size: Size) -> int:
    """How many methods a matrix shows: in a column as many as have room for their names."""
    if size.width is None:
        return MOST
    names = names_of(prominent(comparison, MOST), size, SIDE)
    return min(MOST, int(SIDE / size.pitch(names)))
