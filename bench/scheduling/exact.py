"""The exact optimum on a grid of shares, by enumeration of the sparsity levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.scheduling.baselines import greedy_choice, hand_out
from bench.scheduling.problem import (
    ROUNDING,
    Choice,
    Floats,
    Ints,
    NoPlan,
    Problem,
    Solver,
    whole_iterations,
)


class TooLarge(NoPlan):
    """There are more combinations of levels than the solver is allowed to enumerate."""


@dataclass(frozen=True)
class Exact(Solver):
    """Every combination of levels, each with the best division of the device.

    Exact over all plans whose shares are whole multiples (units) of ``quantum``. If the best plan
    without the memory limit keeps the limit, it is the optimum. Otherwise all combinations of
    levels are enumerated for each half of the applications, with their best values for every
    number of units; the halves are joined in the order of the second half's memory.

    With ``polish``, idle parts of shares are then handed out off the grid, which only adds
    iterations, and the greedy plan is taken where it is better still (or none fits the grid).

    most_values : `TooLarge` is raised where combinations times numbers of units are more than this
    """

    quantum: float = 0.01
    polish: bool = True
    most_values: int = 5_000_000
    name = "exact"

    def choose(self, problem: Problem, seed: int) -> Choice:
        """The best plan's. Raises `NoPlan` without polish if none fits the grid, and `TooLarge`."""
        plans: list[tuple[Ints, Floats]] = []
        if (found := self._on_grid(problem)) is not None:
            levels, shares = found[0], np.asarray(found[1] * self.quantum, dtype=float)
            plans.append((levels, hand_out(problem, levels, shares) if self.polish else shares))
        elif not self.polish:
            raise NoPlan(
                f"solver exact: no plan fits shares in steps of {self.quantum:g}; take a finer step"
            )
        if self.polish:
            plans.append(greedy_choice(problem))
        return *max(plans, key=lambda plan: problem.mean_accuracies(*plan)), 0.0

    def _on_grid(self, problem: Problem) -> tuple[Ints, Ints] | None:
        """Levels and units of the best plan on the grid, both of shape (N,); None without one."""
        values = [_values(problem, i, self.quantum) for i in range(len(problem))]
        units = _divided([each.max(0) for each in values])
        if units is None:
            return None
        memory = [np.array(a.memory_bytes) for a in problem.applications]
        limit = problem.memory_bytes * (1 + ROUNDING)
        # The lightest of the levels that are best at these units.
        levels = np.array(
            [
                np.where(each[:, u] == each[:, u].max(), bytes_, np.inf).argmin()
                for each, bytes_, u in zip(values, memory, units, strict=True)
            ]
        )
        if problem.at(problem.memory, levels).sum() <= limit:
            return levels, units
        best = _best_levels(values, memory, limit, self.most_values)
        if best is None:
            return None
        units = _divided([each[level] for each, level in zip(values, best, strict=True)])
        assert units is not None
        return best, units


def _values(problem: Problem, i: int, quantum: float) -> Floats:
    """Predicted accuracy of one application by level and number of units.

    Shape (levels, units + 1), not falling along the units; -inf where a constraint is broken.
    """
    application = problem.applications[i]
    levels = len(application.sparsities)
    units = np.arange(int(1 / quantum + ROUNDING) + 1)
    each, needs = problem.seconds[i, :levels, None], problem.needs[i, :levels, None]
    counts = whole_iterations(units * quantum * problem.window_s / each)
    values = np.stack([application.accuracy_after(k, counts[k]) for k in range(levels)])
    return np.where(units * quantum >= needs * (1 - ROUNDING), values, -np.inf)


def _divided(values: list[Floats]) -> Ints | None:
    """Units of each application for the highest sum of values, each of shape (units + 1,); None if
    no division is allowed. Of equal sums, the one that gives the first applications fewest units.
    """
    rest = [np.zeros(len(values[0]))]
    for each in reversed(values):
        rest.append(_joined(each[None], rest[-1][None])[0, 0])
    left, found = len(values[0]) - 1, []
    for each, after in zip(values, rest[-2::-1], strict=True):
        reach = each[: left + 1] + after[left::-1]
        found.append(int(reach.argmax()))
        if reach[found[-1]] == -np.inf:
            return None
        left -= found[-1]
    return np.array(found)


def _joined(first: Floats, second: Floats) -> Floats:
    """The best sums with at most u units for both; shape (second's rows, first's rows, units + 1).

    ``max_x first[i, x] + second[j, u - x]`` for every pair of rows.
    """
    size = first.shape[1]
    sums = np.full((len(second), *first.shape), -np.inf)
    for x in range(size):
        if np.isfinite(first[:, x]).any():
            added = first[None, :, x, None] + second[:, None, : size - x]
            np.maximum(sums[:, :, x:], added, out=sums[:, :, x:])
    return sums


def _best_levels(
    values: list[Floats], memory: list[Floats], limit: float, most_values: int
) -> Ints | None:
    """Levels, shape (N,), of the highest sum of values within a limit of memory; None without."""
    half, size = len(values) // 2, values[0].shape[1]
    levels, used, best = _combined(values[:half], memory[:half], size, most_values)
    others, others_used, others_best = _combined(values[half:], memory[half:], size, most_values)
    reached = np.maximum.accumulate(others_best)  # row k: the best of the k + 1 lightest
    fitting = np.searchsorted(others_used, limit - used, side="right")
    sums = np.where(fitting[:, None] > 0, best + reached[fitting - 1, ::-1], -np.inf)
    row, units = divmod(int(sums.argmax()), size)
    if sums[row, units] == -np.inf:
        return None
    return np.r_[levels[row], others[others_best[: fitting[row], size - 1 - units].argmax()]]


def _combined(
    values: list[Floats], memory: list[Floats], size: int, most_values: int
) -> tuple[Ints, Floats, Floats]:
    """The useful combinations of levels of some applications, the lightest first.

    Their levels of shape (combinations, applications), bytes of shape (combinations,), and best
    values by number of units of shape (combinations, size). A combination is useless if lighter
    ones reach its value at every number of units. Raises `TooLarge`.
    """
    levels, used, best = np.zeros((1, 0), dtype=np.int64), np.zeros(1), np.zeros((1, size))
    for each, bytes_ in zip(values, memory, strict=True):
        count = len(used) * len(each)
        if count * size > most_values:
            raise TooLarge(
                f"solver exact: {count} combinations of the levels of half of the applications, "
                f"with {size} shares each, are more than {most_values} values; take the solver "
                "genetic or greedy"
            )
        before, level = np.divmod(np.arange(count), len(each))
        levels, used = np.c_[levels[before], level], used[before] + bytes_[level]
        best = _joined(each, best).reshape(count, size)
        order = used.argsort(kind="stable")
        reached = np.maximum.accumulate(best[order])
        order = order[np.r_[True, (best[order[1:]] > reached[:-1]).any(1)]]
        levels, used, best = levels[order], used[order], best[order]
    return levels, used, best
