"""What a method that trains a selection of tensors selected (ElasticTrainer and its kin)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from bench.records.record import Record

from .aggregate import Row, clean, usable
from .comparison import Comparison
from .drawing import Drawing, Style, finished, grid, marks, plain, repeats, tag
from .figure_size import PAGE, Size

SELECTED = "times_selected"
"""In a section of a record's details: by tensor how often it was selected; beside it the number of
``selections`` and that of all ``tensors``.
"""
COLUMN_BESIDE = 2
"""Methods beside each other in a column."""


def draw_trained(
    comparison: Comparison, look: Mapping[str, Style], size: Size = PAGE
) -> Drawing | None:
    """Of each method that selects, by tensor the share of its selections that trained it, mean over
    runs. None where no record tells of selections.
    """
    found = [(r, told) for r in comparison.drawn if (told := _selections(r)) and _shares(told)]
    if not found:
        return None
    shares = [_shares(told) for _, told in found]
    column = size.width is not None
    every = sorted({name for each in shares for name in each}, key=_natural)
    most = len(every) if column else max(len(each) for each in shares)
    beside = min(COLUMN_BESIDE, len(found)) if column else len(found)
    lines, letters = math.ceil(len(found) / beside), 36 // beside
    height = lines * (0.8 + size.pitch(every) * most) if column else 1.0 + 0.17 * most
    with grid(3.9 * len(found), height, lines, beside, size) as (figure, places):
        for i, (axes, (row, told), known) in enumerate(zip(places, found, shares, strict=False)):
            # In a column the names stand once for the methods beside each other.
            names = every if column else sorted(known, key=_natural)
            color = look[row.label].color
            axes.barh(
                range(len(names)),
                [100 * known.get(n, 0.0) for n in names],
                height=0.75,
                color=color,
            )
            shown = [plain(n) for n in names] if i % beside == 0 or not column else []
            axes.set_yticks(range(len(names)) if shown else [], shown, fontsize=size.tiny)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.spines[["top", "right"]].set_visible(False)
            never = _never(told, known)
            axes.set_title(size.wrapped(f"{tag(row, size)}{never}", letters), fontsize=size.small)
            about = size.wrapped("trained in % of the selections", letters)
            axes.set_xlabel(about, fontsize=size.small)
            axes.tick_params(axis="x", labelsize=size.small)
        for axes in places[len(found) :]:
            axes.set_visible(False)
        rows = [row for row, _ in found]
        caption = (
            "Share of the selections in which a tensor was among those that were trained, mean "
            f"over {repeats(rows)}; tensors that no run ever selected are left out.{marks(rows)}"
        )
        title = f"What was trained: {comparison.title}"
        return finished(figure, "trained", title, caption, size)


def _selections(row: Row) -> list[Mapping[str, Any]]:
    """The sections of its runs' details that tell of selections and can be read."""
    return [
        section for run in row.runs if usable(run) for section in _sections(run) if _whole(section)
    ]


def _sections(record: Record) -> Iterable[Any]:
    return record.details.values()


def _whole(section: Any) -> bool:
    if not isinstance(section, Mapping) or not isinstance(section.get(SELECTED), Mapping):
        return False
    number = section.get("selections")
    if type(number) is not int or number <= 0:
        return False
    return all(type(n) is int and 0 <= n <= number for n in section[SELECTED].values())


def _shares(told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By tensor the mean share of selections over runs, 0 where a run never selected it; without
    those that no run selected, which records may list.
    """
    names = dict.fromkeys(name for each in told for name, n in each[SELECTED].items() if n)
    return {n: fmean(each[SELECTED].get(n, 0) / each["selections"] for each in told) for n in names}


def _never(told: Sequence[Mapping[str, Any]], known: Mapping[str, float]) -> str:
    """How many tensors of the network no run selected, where all runs say how many it has."""
    sizes = {each.get("tensors") for each in told}
    size = sizes.pop() if len(sizes) == 1 else None
    if not isinstance(size, int) or size < len(known):
        return ""
    return f"\n{size - len(known)} of {size} tensors never"


def _natural(name: str) -> list[tuple[bool, float, str]]:
    """Blocks in the order of their numbers."""
    parts = re.split(r"(\d+)", clean(name))
    return [(p.isdecimal(), float(p) if p.isdecimal() else math.inf, p) for p in parts]
