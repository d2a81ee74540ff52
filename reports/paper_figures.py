"""The figures that a report file may name: some of each setting, some across all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bench.errors import BenchError

from .bars_figure import draw_bars
from .comparison import Comparison
from .drawing import Drawing, Style, figure_files, styles
from .figure_size import PAGE, Size
from .figures import FIGURES
from .pairwise_figure import draw_pairwise
from .table_columns import SCORE
from .trained_figure import draw_trained
from .window_figure import ALONG, draw_along, why_not

OF_EACH = {**FIGURES, "pairwise": draw_pairwise, "trained": draw_trained}
"""The figures of each setting, by name."""
BARS = {"bars": SCORE, "bars-memory": "memory", "bars-energy": "energy", "bars-time": "time"}
"""Those of all settings beside each other, and the columns that they show."""
WHY_NOT = {
    "tradeoff": "no run's energy is known",
    "matrix": "no run knows the accuracy on all domains after each",
    "pairwise": "it has one method",
    "trained": "no record tells which tensors a method selected",
    "breakdown": "no record tells the time of several kinds of work",
}
"""Why a setting with results may lack a figure."""
TOLD_BY_SOME = ("trained", "breakdown")
UNKNOWN = "no run's is known"
"""The same of bars."""


def paper_figures(
    names: Sequence[str],
    comparisons: Sequence[Comparison],
    titles: Mapping[str, str],
    where: str,
    size: Size = PAGE,
) -> dict[str, bytes]:
    """The files of the figures by name, and their captions; ``titles``: of the comparisons, by key.

    Raises BenchError, which begins with ``where``, for a figure that cannot be drawn. Figures of
    what only some methods tell are drawn of the settings that tell it, which must be one at least.
    """
    look, made = styles(comparisons), dict[str, Drawing]()
    for name in names:
        drawn = _drawn(name, comparisons, look, titles, size)
        lacking = [c for c in comparisons if name in OF_EACH and c.slug not in drawn]
        if (lacking and name not in TOLD_BY_SOME) or not drawn:
            of = f" of {lacking[0].title}" if lacking else ""
            why = why_not(name, comparisons) if name in ALONG else WHY_NOT.get(name, UNKNOWN)
            raise BenchError(
                f"{where}: key 'figures': {name} cannot be drawn{of}: {why}; leave it out"
            )
        for slug, drawing in drawn.items():
            made["-".join(filter(None, ("figure", name, slug)))] = drawing
    return figure_files(made)


def _drawn(
    name: str,
    comparisons: Sequence[Comparison],
    look: Mapping[str, Style],
    titles: Mapping[str, str],
    size: Size,
) -> dict[str, Drawing]:
    """A figure's drawings, by what their files are called; those that are possible."""
    if name in ALONG:
        return draw_along(name, comparisons, look, size)
    if name in BARS:
        made = {"": draw_bars(BARS[name], comparisons, look, titles, size)}
    else:
        made = {c.slug: OF_EACH[name](c, look, size) for c in comparisons}
    return {slug: drawing for slug, drawing in made.items() if drawing is not None}
