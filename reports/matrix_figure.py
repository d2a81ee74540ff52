"""The matrix of accuracies: what each domain's accuracy is after each of the others was learned."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .aggregate import Row
from .comparison import Comparison
from .course import stages_of
from .drawing import Drawing, Style, finished, grid, marks, plain, prominent, tag
from .figure_size import PAGE, Size

MOST = 6
"""Methods that one figure shows."""
NUMBERED = 8
"""Stages up to which the cells have numbers."""
COLUMN_NUMBERED, COLUMN_NAMED = {1: 8, 2: 5}, {1: 20, 2: 9}
"""The same in a column with so many beside each other, and how many have their names."""


def draw_matrix(
    comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE
) -> Drawing | None:
    """Heat maps ``R[i][j]``: accuracy on stage j after stage i, the mean over runs.

    None unless the protocol evaluates all domains; of many methods the prominent ones.
    """
    rows = [row for row in prominent(comparison, MOST) if _matrices(row)]
    if not rows:
        return None
    stages = [plain(name) for name in stages_of(comparison.cell.protocol, comparison.domains)]
    column = size.width is not None
    columns = min(2 if column else 3, len(rows))
    lines = math.ceil(len(rows) / columns)
    side = min(3.6, max(2.2, 1.0 + 0.2 * len(stages)))
    numbered = len(stages) <= (COLUMN_NUMBERED[columns] if column else NUMBERED)
    step = math.ceil(len(stages) / COLUMN_NAMED[columns]) if column else 1
    named = slice(None, None, step)
    height = lines * (side + 0.3)
    if column:
        height = 1.1 + lines * ((size.or_column(0) - 0.7) / columns + 0.25)
    with grid(columns * side + 1.2, height, lines, columns, size) as (figure, places):
        for i, (axes, row) in enumerate(zip(places, rows, strict=False)):
            mean = 100 * np.mean(_matrices(row), axis=0)
            image = axes.imshow(mean, vmin=0, vmax=100, cmap="cividis")
            axes.set_title(tag(row, size), fontsize=size.small)
            at = range(len(stages))[named]
            axes.set_xticks(at, stages[named], rotation=90)
            axes.set_yticks(at, stages[named])
            if column:
                axes.tick_params(axis="y", labelleft=i % columns == 0)
                axes.tick_params(axis="x", labelbottom=i + columns >= len(rows))
            if numbered:
                for (y, x), value in np.ndenumerate(mean):
                    axes.text(
                        x, y, f"{value:.0f}", ha="center", va="center", fontsize=size.tiny,
                        color="white" if value < 60 else "black",
                    )  # fmt: skip
        for axes in places[len(rows) :]:
            axes.set_visible(False)
        label = comparison.metric.named_in("accuracy (%)")
        figure.colorbar(image, ax=places, label=label, **size.color_bar)
        figure.supxlabel("tested on", fontsize=size.small)
        figure.supylabel("after learning", fontsize=size.small)
        shown = "" if len(rows) == len(comparison.drawn) else f" {len(rows)} prominent rows."
        caption = comparison.metric.named_in(
            "Accuracy on each stage (columns) after each stage was learned (rows), mean over runs. "
            f"Below the diagonal: what is kept; above it: what is not learned yet.{shown}"
            f"{marks(rows)}"
        )
        title = comparison.metric.named_in(f"Accuracy matrix: {comparison.title}")
        return finished(figure, "matrix", title, caption, size)


def _matrices(row: Row) -> list[list[list[float]]]:
    return [r.matrix for r in row.results.values() if r.matrix is not None]
