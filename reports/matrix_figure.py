"""The matrix of accuracies: what each domain's accuracy is after each of the others was learned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .aggregate import Row
from .comparison import Comparison
from .course import stages_of
from .drawing import Drawing, Style, finished, grid, marks, plain, prominent, tag

MOST = 6
"""Methods that one figure shows."""
NUMBERED = 8
"""Stages up to which the cells have numbers."""


def draw_matrix(comparison: Comparison, look: Mapping[str, Style]) -> Drawing | None:
    """Heat maps ``R[i][j]``: accuracy on stage j after stage i, the mean over runs.

    None unless the protocol evaluates all domains; of many methods the prominent ones.
    """
    rows = [row for row in prominent(comparison, MOST) if _matrices(row)]
    if not rows:
        return None
    stages = [plain(name) for name in stages_of(comparison.cell.protocol, comparison.domains)]
    columns = min(3, len(rows))
    lines = math.ceil(len(rows) / columns)
    side = min(3.6, max(2.2, 1.0 + 0.2 * len(stages)))
    with grid(columns * side + 1.2, lines * (side + 0.3), lines, columns) as (figure, places):
        for axes, row in zip(places, rows, strict=False):
            mean = 100 * np.mean(_matrices(row), axis=0)
            image = axes.imshow(mean, vmin=0, vmax=100, cmap="cividis")
            axes.set_title(tag(row), fontsize="small")
            axes.set_xticks(range(len(stages)), stages, rotation=90)
            axes.set_yticks(range(len(stages)), stages)
            if len(stages) <= NUMBERED:
                for (i, j), value in np.ndenumerate(mean):
                    axes.text(
                        j, i, f"{value:.0f}", ha="center", va="center", fontsize="x-small",
                        color="white" if value < 60 else "black",
                    )  # fmt: skip
        for axes in places[len(rows) :]:
            axes.set_visible(False)
        figure.colorbar(image, ax=places, label=comparison.metric.named_in("accuracy (%)"))
        figure.supxlabel("tested on", fontsize="small")
        figure.supylabel("after learning", fontsize="small")
        shown = "" if len(rows) == len(comparison.drawn) else f" {len(rows)} prominent rows."
        caption = comparison.metric.named_in(
            "Accuracy on each stage (columns) after each stage was learned (rows), mean over runs. "
            f"Below the diagonal: what is kept; above it: what is not learned yet.{shown}"
            f"{marks(rows)}"
        )
        title = comparison.metric.named_in(f"Accuracy matrix: {comparison.title}")
        return finished(figure, "matrix", title, caption)


def _matrices(row: Row) -> list[list[list[float]]]:
    return [r.matrix for r in row.results.values() if r.matrix is not None]
