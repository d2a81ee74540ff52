"""The useful choices of each application on a grid of shares, and bounds on what they can reach."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.scheduling.problem import ROUNDING, Floats, Ints, Problem, whole_iterations

_DOUBLINGS = 40
_BISECTIONS = 30


@dataclass(frozen=True)
class Options:
    """What one application may choose; all of shape (options,), sorted by units.

    units : of share, each a quantum
    memory : as a part of the problem's memory
    value : predicted accuracy
    level : index of the sparsity
    """

    units: Ints
    memory: Floats
    value: Floats
    level: Ints

    def __len__(self) -> int:
        return len(self.units)

    def where(self, keep: NDArray[np.bool_]) -> Options:
        """Those that a mask keeps."""
        return Options(self.units[keep], self.memory[keep], self.value[keep], self.level[keep])


def units_of(quantum: float) -> int:
    """Whole quanta in one device."""
    return int(1 / quantum + ROUNDING)


def all_options(problem: Problem, quantum: float) -> list[Options]:
    """Every choice on the grid that no other choice of the same application dominates.

    Kept for each level: the least share that reaches each number of iterations. Then dropped:
    what takes no less share and memory than another choice and is no better.
    """
    total = units_of(quantum)
    least = np.ceil(problem.needs.min(1) / quantum - ROUNDING)
    return [_options(problem, i, quantum, total, int(least[i])) for i in range(len(problem))]


def _options(problem: Problem, i: int, quantum: float, total: int, least: int) -> Options:
    application = problem.applications[i]
    parts = []
    for level in range(len(application.sparsities)):
        units = np.arange(least, total + 1)
        seconds = problem.seconds[i, level]
        count = whole_iterations(units * quantum * problem.window_s / seconds)
        enough = units * quantum >= problem.needs[i, level] * (1 - ROUNDING)
        units, count = units[enough], count[enough]
        first = np.r_[True, count[1:] > count[:-1]][: len(units)]
        units, count = units[first], count[first]
        parts.append(
            Options(
                units,
                np.full(len(units), problem.memory[i, level] / problem.memory_bytes),
                application.accuracy_after(level, count),
                np.full(len(units), level),
            )
        )
    units, memory, value, level_ = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("units", "memory", "value", "level")
    )
    order = np.lexsort((-value, memory, units))
    options = Options(units[order], memory[order], value[order], level_[order])
    # In this order only an earlier choice can dominate a later one.
    keep = np.ones(len(order), dtype=bool)
    for j in range(1, len(order)):
        light = options.memory[:j] <= options.memory[j]
        keep[j] = not (light & (options.value[:j] >= options.value[j])).any()
    return options.where(keep)


@dataclass(frozen=True)
class Prices:
    """What the applications from the i-th on can reach, if memory costs a price instead.

    ``own[i][u]``: the most of ``value - price * memory`` of application i with at most u units;
    ``best[i][u]``: of the sum over applications i, i+1, ...; ``ahead[i][u]``: over those before i.
    A Lagrangian relaxation of the memory constraint: with ``price * memory left`` added, an upper
    bound.
    """

    price: float
    own: list[Floats]
    best: list[Floats]

    @cached_property
    def ahead(self) -> list[Floats]:
        """Made only where it is needed: the search for prices looks at bounds alone."""
        tables = [np.zeros(len(self.own[0]))]
        for table in self.own:
            tables.append(joined(tables[-1], table))
        return tables

    @property
    def bound(self) -> float:
        """Upper bound on the sum of values of any choice that fits."""
        return float(self.best[0][-1]) + self.price * (1 + ROUNDING)


def prices(options: list[Options], total: int, price: float) -> Prices:
    """The tables for one price of the whole memory."""
    own = [_by_units(each, total, price) for each in options]
    best = [np.zeros(total + 1)]
    for table in reversed(own):
        best.append(joined(table, best[-1]))
    return Prices(price, own, best[::-1])


def _by_units(options: Options, total: int, price: float) -> Floats:
    table = np.full(total + 1, -np.inf)
    np.maximum.at(table, options.units, options.value - price * options.memory)
    return np.asarray(np.maximum.accumulate(table))


def joined(a: Floats, b: Floats) -> Floats:
    """The best sum with at most u units for both: ``max_x a[x] + b[u - x]``; shape (units,)."""
    size = len(a)
    padded = np.r_[np.full(size - 1, -np.inf), b]
    windows = np.lib.stride_tricks.sliding_window_view(padded, size)
    return np.asarray((windows + a[::-1]).max(1))


def chosen_at(options: list[Options], total: int, table: Prices) -> Ints | None:
    """The choice (index of an option for each application) that the relaxation takes."""
    left, found = total, []
    for i, each in enumerate(options):
        rest = left - each.units
        value = each.value - table.price * each.memory
        reach = np.where(rest >= 0, value + table.best[i + 1][np.maximum(rest, 0)], -np.inf)
        pick = int(reach.argmax())
        if reach[pick] == -np.inf:
            return None
        found.append(pick)
        left -= int(each.units[pick])
    return np.array(found)


def search_prices(options: list[Options], total: int) -> tuple[list[Prices], Ints | None]:
    """Tables around the price with the lowest bound, and the best choice seen that fits.

    The choice is None if none fits the memory.
    """
    fits: list[tuple[float, Ints]] = []
    seen: list[Prices] = []

    def tried(price: float) -> bool:
        """Whether the choice at a price fits the memory."""
        table = prices(options, total, price)
        choice = chosen_at(options, total, table)
        if choice is None:
            return False
        seen.append(table)
        memory = sum(float(o.memory[c]) for o, c in zip(options, choice, strict=True))
        if memory > 1 + ROUNDING:
            return False
        fits.append((sum(float(o.value[c]) for o, c in zip(options, choice, strict=True)), choice))
        return True

    if not tried(0.0) and seen:
        low, high = 0.0, 0.125
        for _ in range(_DOUBLINGS):
            if tried(high):
                break
            low, high = high, 2 * high
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (low, middle) if tried(middle) else (middle, high)
    seen.sort(key=lambda table: table.bound)
    useful = seen[:3] + [table for table in seen if table.price == 0.0]
    return useful, max(fits, key=lambda found: found[0])[1] if fits else None
