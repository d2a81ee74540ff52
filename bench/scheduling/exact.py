"""The exact optimum on a grid of shares: dynamic programming with bounds."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.scheduling.assignment import NoPlan, Plan, make_plan
from bench.scheduling.greedy import greedy_choice
from bench.scheduling.options import (
    Options,
    Prices,
    all_options,
    joined,
    prices,
    search_prices,
    units_of,
)
from bench.scheduling.problem import ROUNDING, Floats, Ints, Problem, mean_accuracy
from bench.scheduling.shares import hand_out

_BLOCK = 1_000_000
_TIE = 1e-13
"""Sums of accuracies nearer than this are taken as equal."""


class TooLarge(NoPlan):
    """More partial plans than the solver was allowed to keep."""


@dataclass
class _Labels:
    """Partial plans of the first applications that no other one dominates.

    units, memory, value : summed over those applications; shape (labels,)
    parent, option : the label one application before, and what the last application took
    """

    units: Ints
    memory: Floats
    value: Floats
    parent: Ints
    option: Ints

    def where(self, keep: NDArray[np.bool_] | Ints) -> _Labels:
        return _Labels(
            self.units[keep],
            self.memory[keep],
            self.value[keep],
            self.parent[keep],
            self.option[keep],
        )


@dataclass(frozen=True)
class Exact:
    """Dynamic programming over the applications, with labels (share used, memory used, value).

    Shares are whole multiples of ``quantum``: 0.01 gives 100 units, and the optimum is exact over
    all plans on that grid. A label is dropped if another one took no more share and no more memory
    for no less value, or if a Lagrangian bound on what may still follow shows that it cannot beat
    the best plan known. With ``polish``, idle parts of shares are then pooled and handed out off
    the grid, which only adds iterations, and the greedy plan is taken in the rare case that it is
    better still (or that no plan fits the grid).

    most_labels : `TooLarge` is raised where more labels than this would have to be kept
    """

    quantum: float = 0.01
    polish: bool = True
    most_labels: int = 300_000
    name = "exact"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The best plan; the seed has no influence.

        Raises `NoPlan` without polish if no plan fits the grid, and `TooLarge`.
        """
        began = time.process_time()
        options = all_options(problem, self.quantum)
        choice = _best(options, units_of(self.quantum), self.most_labels)
        plans: list[tuple[Ints, Floats]] = []
        if choice is not None:
            picked = list(zip(options, choice, strict=True))
            levels = np.array([o.level[c] for o, c in picked])
            shares = np.array([o.units[c] for o, c in picked]) * self.quantum
            plans.append((levels, hand_out(problem, levels, shares) if self.polish else shares))
        elif not self.polish:
            raise NoPlan(
                f"solver exact: no plan fits shares in steps of {self.quantum:g}; take a finer step"
            )
        if self.polish:
            plans.append(greedy_choice(problem))
        levels, shares = max(plans, key=lambda plan: mean_accuracy(problem, *plan))
        return make_plan(problem, levels, shares, self.name, time.process_time() - began)


def _best(options: list[Options], total: int, most_labels: int) -> Ints | None:
    """Index of the option of each application in a plan of the highest sum; None if none fits."""
    if any(not len(each) for each in options):
        return None
    tables, known = search_prices(options, total)
    if known is None:  # the relaxation found no plan; one may still exist
        reached = -np.inf
    else:
        reached = sum(float(o.value[c]) for o, c in zip(options, known, strict=True))
    if not tables:
        return None
    kept, tables = _without_hopeless(options, total, tables, reached)
    if any(not keep.any() for keep in kept):
        return known  # nothing can beat it
    small = [each.where(keep) for each, keep in zip(options, kept, strict=True)]
    found = _labelled(small, total, tables, reached, most_labels)
    if found is None:
        return known
    return np.array([np.flatnonzero(keep)[c] for keep, c in zip(kept, found, strict=True)])


def _without_hopeless(
    options: list[Options], total: int, tables: list[Prices], reached: float
) -> tuple[list[NDArray[np.bool_]], list[Prices]]:
    """Masks of the options that could be part of a better plan, and tables over only those."""
    kept = [np.ones(len(each), dtype=bool) for each in options]
    for _ in range(2):  # tighter tables exclude more
        small = [each.where(keep) for each, keep in zip(options, kept, strict=True)]
        for i, each in enumerate(small):
            alive = np.ones(len(each), dtype=bool)
            for table in tables:
                rest = joined(table.ahead[i], table.best[i + 1])
                bound = each.value + table.price * (1 + ROUNDING - each.memory)
                alive &= bound + rest[total - each.units] > reached + _TIE
            kept[i][np.flatnonzero(kept[i])[~alive]] = False
        small = [each.where(keep) for each, keep in zip(options, kept, strict=True)]
        if any(not len(each) for each in small):
            break
        tables = [prices(small, total, table.price) for table in tables]
    return kept, tables


def _labelled(
    options: list[Options], total: int, tables: list[Prices], reached: float, most: int
) -> list[int] | None:
    """The best choice above what was reached before, by labels; None if there is none."""
    lightest = np.cumsum([0.0, *(each.memory.min() for each in reversed(options))])[::-1]
    start = np.zeros(1, dtype=np.int64)
    stages = [_Labels(start, np.zeros(1), np.zeros(1), start, start)]
    for i, each in enumerate(options):
        before = stages[-1]
        block = max(1, _BLOCK // len(each))
        parts = []
        for first in range(0, len(before.units), block):
            rows = slice(first, first + block)
            parts.append(_extended(before, rows, each, i, total, tables, reached, lightest[i + 1]))
            if sum(len(part.units) for part in parts) > 4 * most:
                parts = [_undominated(_stacked(parts))]
        labels = _undominated(_stacked(parts))
        if not len(labels.units):
            return None
        if len(labels.units) > most:
            raise TooLarge(
                f"solver exact: more than {most} partial plans after {i + 1} of {len(options)} "
                "applications; take another solver or a coarser quantum"
            )
        stages.append(labels)
    pick = int(stages[-1].value.argmax())
    choice = []
    for labels in reversed(stages[1:]):
        choice.append(int(labels.option[pick]))
        pick = int(labels.parent[pick])
    return choice[::-1]


def _extended(
    before: _Labels,
    rows: slice,
    options: Options,
    i: int,
    total: int,
    tables: list[Prices],
    reached: float,
    lightest: float,
) -> _Labels:
    """Labels of a block of rows, each with every option of the next application that may pay."""
    units = before.units[rows, None] + options.units
    memory = before.memory[rows, None] + options.memory
    value = before.value[rows, None] + options.value
    alive = (units <= total) & (memory + lightest <= 1 + ROUNDING)
    row, option = np.nonzero(alive)
    units, memory, value = units[alive], memory[alive], value[alive]
    for table in tables:
        bound = value + table.price * (1 + ROUNDING - memory) + table.best[i + 1][total - units]
        keep = bound > reached + _TIE
        row, option = row[keep], option[keep]
        units, memory, value = units[keep], memory[keep], value[keep]
    return _Labels(units, memory, value, row + rows.start, option)


def _stacked(parts: list[_Labels]) -> _Labels:
    names = ("units", "memory", "value", "parent", "option")
    return _Labels(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _undominated(labels: _Labels) -> _Labels:
    """Those that no other label beats or equals in units, memory and value at once."""
    labels = labels.where(np.lexsort((-labels.value, labels.memory, labels.units)))
    edges = np.flatnonzero(np.r_[True, labels.units[1:] > labels.units[:-1]])
    front_memory, front_value = np.zeros(0), np.zeros(0)
    kept = []
    for first, last in zip(edges, [*edges[1:], len(labels.units)], strict=True):
        # Labels of one number of units against those of fewer, whose front is kept aside.
        memory, value = labels.memory[first:last], labels.value[first:last]
        place = np.searchsorted(front_memory, memory, side="right")
        beaten = np.r_[-np.inf, front_value][place]
        ahead = np.r_[-np.inf, np.maximum.accumulate(value)[:-1]]
        good = value > np.maximum(beaten, ahead)
        kept.append(np.flatnonzero(good) + first)
        memory = np.r_[front_memory, memory[good]]
        value = np.r_[front_value, value[good]]
        order = np.lexsort((-value, memory))
        memory, value = memory[order], value[order]
        rising = np.r_[True, value[1:] > np.maximum.accumulate(value)[:-1]][: len(value)]
        front_memory, front_value = memory[rising], value[rising]
    return labels.where(np.concatenate(kept)) if kept else labels
