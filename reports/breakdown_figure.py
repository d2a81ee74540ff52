"""What the adaptation time of a method goes into: its seconds on the device by kind of work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from bench.records.record import Costs

from .aggregate import Row, shorten
from .comparison import Comparison
from .drawing import (
    Drawing,
    Style,
    finished,
    legend,
    marks,
    names_of,
    plain,
    prominent,
    repeats,
    sheet,
    tag,
)
from .figure_size import NARROW, PAGE, Size
from .figure_style import COLORBLIND
from .statistics import units
from .table_model import decimals

KINDS = 7
"""Kinds that have a color of their own."""
MOST = 40
"""Rows of the figure: of more those with the best scores."""
OTHER = "other kinds"
_HATCH = "////"
_COLOURS = [COLORBLIND[i] for i in (0, 1, 2, 4, 9, 5, 3)]


def draw_breakdown(
    comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE
) -> Drawing | None:
    """Of each method a bar of its seconds by kind, mean over runs. None where no run has several
    kinds: the table's adaptation time says the same.

    A method whose records do not hold the time of each kind has "unavailable" in place of a bar.
    """
    del look  # colors are of kinds here
    rows = [r for r in prominent(comparison, MOST) if r.costs["time"].estimate is not None]
    known = {id(row): found for row in rows if (found := mean_seconds(row)) is not None}
    if max((len(each) for each in known.values()), default=0) < 2:
        return None
    kinds = _largest(list(known.values()))
    most = max(sum(each.values()) for each in known.values())
    names = names_of(rows, size)
    with sheet(6.8, size.bars_height(names), size) as (figure, axes):
        for i, row in enumerate(rows):
            if id(row) not in known:
                axes.text(0.01 * most, i, "unavailable", va="center", style="italic", color="0.35",
                          fontsize=size.small)  # fmt: skip
                continue
            start = 0.0
            for name, seconds in _shown(known[id(row)], kinds).items():
                style = {"color": _COLOURS[kinds.index(name)]} if name in kinds else {
                    "facecolor": "white", "edgecolor": "0.4", "hatch": _HATCH, "linewidth": 0.5,
                }  # fmt: skip
                axes.barh(i, seconds, left=start, height=0.7, label=plain(shorten(name, 30)),
                          **style)  # fmt: skip
                start += seconds
            text = f"{start:.{decimals(start)}f}"
            axes.annotate(text, (start, i), (4, 0), textcoords="offset points", va="center",
                          fontsize=size.number)  # fmt: skip
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, size.either(1.12, 1.2) * most)
        axes.grid(visible=False, axis="y")
        told = " and ".join(sorted({kind for row in rows for kind in row.costs["time"].kinds}))
        about = f"adaptation time of the whole stream (s, {told})"
        axes.set_xlabel(size.wrapped(about, NARROW))
        legend(axes, last=OTHER, size=size)
        caption = (
            "Seconds of adaptation on the device by kind of work, as methods name their steps and "
            f"sections, mean over {repeats(rows)}. Predictions and what is done before the stream "
            f"are not in it.{marks(rows)}"
        )
        if absent := [tag(row) for row in rows if id(row) not in known]:
            caption += (
                f" Unavailable: records of {', '.join(absent)} hold the sum over several kinds "
                "alone; run them again."
            )
        title = f"Time by kind of work: {comparison.title}"
        return finished(figure, "breakdown", title, caption, size)


def seconds_by_kind(costs: Costs) -> Mapping[str, float] | None:
    """What a run's adaptation time consists of; None where its record does not tell.

    Records from before the time of each kind was kept tell it if there is one kind at most.
    """
    if costs.time_by_kind is not None:
        return costs.time_by_kind
    total = costs.adaptation_time.value
    if total is None or len(costs.steps) > 1:
        return None
    return dict.fromkeys(costs.steps, total)


def mean_seconds(row: Row) -> dict[str, float] | None:
    """By kind the mean over repeats, as the mean of the adaptation time is; None if a run lacks
    it.
    """
    found = {run: seconds_by_kind(results.costs) for run, results in row.results.items()}
    if not found or any(each is None for each in found.values()):
        return None
    names = dict.fromkeys(name for each in found.values() for name in each or ())

    def mean(name: str) -> float:
        return fmean(units({r: (each or {}).get(name, 0.0) for r, each in found.items()}).values())

    return {name: mean(name) for name in names}


def _largest(known: Sequence[Mapping[str, float]]) -> list[str]:
    """The kinds that take the most time of any method, in this order."""
    share: dict[str, float] = defaultdict(float)
    for each in known:
        whole = sum(each.values()) or 1.0
        for name, seconds in each.items():
            share[name] += seconds / whole
    return sorted(share, key=lambda name: (-share[name], name))[:KINDS]


def _shown(seconds: Mapping[str, float], kinds: Sequence[str]) -> dict[str, float]:
    """The kinds in the order of all bars, the rest as one."""
    shown = {name: seconds[name] for name in kinds if name in seconds}
    rest = sum(value for name, value in seconds.items() if name not in kinds)
    return shown | ({OTHER: rest} if rest else {})
