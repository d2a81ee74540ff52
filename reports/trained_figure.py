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

SELECTED = "times_selected"
"""In a section of a record's details: by tensor how often it was selected; beside it the number of
``selections`` and that of all ``tensors``.
"""


def draw_trained(comparison: Comparison, look: Mapping[str, Style]) -> Drawing | None:
    """Of each method that selects, by tensor the share of its selections that trained it, mean over
    runs. None where no record tells of selections.
    """
    found = [(row, told) for row in comparison.drawn if (told := _selections(row))]
    if not found:
        return None
    shares = [_shares(told) for _, told in found]
    most = max(len(each) for each in shares)
    width = 3.9 * len(found)
    with grid(width, 1.0 + 0.17 * most, 1, len(found)) as (figure, places):
        for axes, (row, told), known in zip(places, found, shares, strict=True):
            names = sorted(known, key=_natural)
            color = look[row.label].color
            axes.barh(range(len(names)), [100 * known[n] for n in names], height=0.75, color=color)
            axes.set_yticks(range(len(names)), [plain(n) for n in names], fontsize="x-small")
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlim(0, 100)
            axes.spines[["top", "right"]].set_visible(False)
            never = _never(told, known)
            axes.set_title(f"{tag(row)}{never}", fontsize="small")
            axes.set_xlabel("trained in % of the selections", fontsize="small")
            axes.tick_params(axis="x", labelsize="small")
        rows = [row for row, _ in found]
        caption = (
            "Share of the selections in which a tensor was among those that were trained, mean "
            f"over {repeats(rows)}; tensors that no run ever selected are left out.{marks(rows)}"
        )
        return finished(figure, "trained", f"What was trained: {comparison.title}", caption)


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
    """By tensor the mean share of selections over runs, 0 where a run never selected it."""
    names = dict.fromkeys(name for each in told for name in each[SELECTED])
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
