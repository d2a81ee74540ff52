"""Every method against every other, as a matrix of paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

import numpy as np

from .comparison import Comparison
from .drawing import Drawing, Style, finished, grid, marks, prominent, tag
from .statistics import distinguishable, paired_difference

MOST = 30
"""Methods that a matrix shows."""


def draw_pairwise(comparison: Comparison, look: Mapping[str, Style]) -> Drawing | None:
    """``D[i][j]``: mean paired difference of the score, row minus column, in points.

    Colored where its 95 % interval excludes 0, so never with fewer than 3 pairs. None with one
    method.
    """
    import seaborn as sns  # for its colors: takes longer than drawing

    rows = sorted(prominent(comparison, MOST), key=lambda row: -fmean(row.scores.values()))
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
    with grid(side + 3.6, side + 1.9, 1, 1) as (figure, (axes,)):
        colors = sns.color_palette("vlag_r", as_cmap=True)
        image = axes.imshow(told, cmap=colors, vmin=-most, vmax=most)
        for (i, j), value in np.ndenumerate(means):
            if not math.isnan(value):
                sure = not math.isnan(told[i, j])
                dark = sure and abs(value) > 0.75 * most
                axes.text(
                    j, i, f"{value + 0.0:+.1f}" if abs(value) < 9.95 else f"{value:+.0f}",
                    ha="center", va="center", fontsize=6,
                    color="white" if dark else "black" if sure else "0.55",
                )  # fmt: skip
        names = [tag(row) for row in rows]
        axes.set_xticks(range(n), names, rotation=90, fontsize="small")
        axes.set_yticks(range(n), names, fontsize="small")
        label = comparison.metric.named_in("accuracy: row minus column (points)")
        figure.colorbar(image, ax=axes, label=label, shrink=0.8)
        left = "" if n == len(comparison.drawn) else f" {n} prominent rows."
        caption = comparison.metric.named_in(
            "Best first. Mean paired difference of the accuracy, row minus column, in points. "
            "Colored: its 95 % interval excludes 0, each pair by itself, not corrected for their "
            f"number. Grey: not distinguishable, or fewer than 3 pairs.{left}{marks(rows)}"
        )
        title = f"Each method against each: {comparison.title}"
        return finished(figure, "pairwise", title, caption)
