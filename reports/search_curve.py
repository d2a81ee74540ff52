"""How good the best of k trials of a search is expected to be."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from bench import register

COLUMNS = 4
"""Small figures side by side, one for each method."""


def expected_best(scores: Sequence[float | None]) -> list[float]:
    """Expected highest score of k of the trials, for k from 1 to all of them.

    Over all choices of k of the n trials, without putting back: sum over i of s_(i) C(i - 1, k - 1)
    / C(n, k) with the scores in rising order (Dodge et al., EMNLP 2019, who put back; Tang et al.,
    ACL 2020, as here). A trial without a score counts 0.
    """
    rising = sorted(0.0 if score is None else score for score in scores)
    n = len(rising)
    return [
        sum(s * math.comb(i, k - 1) for i, s in enumerate(rising)) / math.comb(n, k)
        for k in range(1, n + 1)
    ]


@register("report", "expected-best")
def expected_best_figure(searches: Mapping[str, Sequence[float | None]], suite: str) -> bytes:
    """A PNG of `expected_best` of each method's trials on their first validation run.

    ``searches``: scores in [0, 1] by method, the defaults first, whose score is a dashed line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = {name: scores for name, scores in searches.items() if scores}
    rows = max(1, math.ceil(len(drawn) / COLUMNS))
    figure = Figure(figsize=(2.4 * COLUMNS, 1.7 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes, (name, scores) in zip(grid.flat, drawn.items(), strict=False):
        best = [100 * value for value in expected_best(scores)]
        axes.plot(range(1, len(best) + 1), best, marker="o", markersize=3, color="#0173b2")
        if scores[0] is not None:
            axes.axhline(100 * scores[0], color="#767676", linestyle="--", linewidth=1)
        low, high = axes.get_ylim()
        if high - low < 1.0:  # noise must not look like a slope
            middle = fmean((low, high))
            axes.set_ylim(middle - 0.5, middle + 0.5)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in list(grid.flat)[len(drawn) :]:
        axes.set_axis_off()
    figure.supxlabel("trials", fontsize=8)
    figure.supylabel("expected best score (%)", fontsize=8)
    figure.suptitle(
        f"Search of {suite}: expected best on the first validation run; dashed: defaults",
        fontsize=9,
    )
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=150, metadata={"Software": None})
    return made.getvalue()
