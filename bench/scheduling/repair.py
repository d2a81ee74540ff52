"""Turn any levels and weights into a plan that keeps every constraint, many at a time."""

from __future__ import annotations

import numpy as np

from bench.scheduling.problem import ROUNDING, Floats, Ints, Problem


def repaired(problem: Problem, levels: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """Levels and shares, both of shape (plans, N), from levels and weights of that shape.

    Memory first: while a plan takes too much, the application that takes most of what can still
    shrink goes to its next lighter level. Then time: while the least shares sum to more than 1,
    the application with the largest goes to its next faster level that takes no more memory.
    Plans that this does not save take feasible levels. At last each application gets its least
    share and, by its weight, a part of the rest, so that shares sum to 1.
    """
    levels = levels.copy()
    limit = problem.memory_bytes * (1 + ROUNDING)
    _lower(problem, levels, problem.memory, _next(problem.memory, problem.needs), limit)
    faster = _next(problem.needs, problem.memory, no_more=True)
    _lower(problem, levels, problem.needs, faster, 1 + ROUNDING)
    levels[~problem.fits(levels)] = problem.feasible_levels
    floors = problem.at(problem.needs, levels)
    weights = np.where(weights.sum(1, keepdims=True) > 0, weights, 1.0)
    rest = np.maximum(1 - floors.sum(1, keepdims=True), 0.0)
    return levels, floors + rest * weights / weights.sum(1, keepdims=True)


def _lower(problem: Problem, levels: Ints, table: Floats, lower: Ints, limit: float) -> None:
    """Step, in place, from level to lower level until each plan's sum keeps the limit."""
    while True:
        used = problem.at(table, levels)
        down = problem.at(lower, levels)
        movable = np.where(down >= 0, used, -1.0)
        rows = np.flatnonzero((used.sum(1) > limit) & (movable.max(1) >= 0))
        if not len(rows):
            return
        which = movable[rows].argmax(1)
        levels[rows, which] = down[rows, which]


def _next(table: Floats, other: Floats, no_more: bool = False) -> Ints:
    """For each level the one with the next lower entry, or -1; shape (N, levels).

    Of equal entries, the one that is lowest in the other table; with ``no_more``, only levels
    whose other entry is no higher.
    """
    found = np.full(table.shape, -1)
    for i, (row, beside) in enumerate(zip(table, other, strict=True)):
        for level in range(len(row)):
            lower = row < row[level]
            if no_more:
                lower &= beside <= beside[level]
            if lower.any():
                near = np.flatnonzero(lower & (row == row[lower].max()))
                found[i, level] = near[beside[near].argmin()]
    return found
