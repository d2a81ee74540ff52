"""The published solver: a genetic algorithm of scikit-opt, with repair and good starts."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.scheduling.baselines import greedy_choice, hand_out, uniform_choice
from bench.scheduling.problem import ROUNDING, Choice, Floats, Ints, NoPlan, Problem, Solver

_PRECISION = 1e-3
"""Of a share or a weight: 10 genes each."""


@dataclass(frozen=True)
class Genetic(Solver):
    """``sko.GA.GA`` on levels and shares (EdgeTA names scikit-opt 0.6.6; that it was GA is likely).

    Genes are a level and a weight for each application; shares follow from the weights, and every
    individual is repaired before it is judged. The greedy and the uniform plan are among the first
    individuals, and idle parts of the best plan's shares are handed out at the end.

    plain : as published instead: genes are levels and shares, broken constraints are penalised by
        scikit-opt, the first individuals are random. The best individual may then break one.
    size_pop : individuals, even; max_iter : generations
    prob_mut : that a gene flips; scikit-opt's default, 0.001, stops too early on this problem
    """

    plain: bool = False
    size_pop: int = 50
    max_iter: int = 100
    prob_mut: float = 0.01
    name = "genetic"

    def __post_init__(self) -> None:
        if self.size_pop < 4 or self.size_pop % 2:
            raise BenchError(f"solver genetic: {self.size_pop} individuals; give 4 or more, even")

    def choose(self, problem: Problem, seed: int) -> Choice:
        """The best plan's. Raises `NoPlan` if ``plain`` and it breaks a constraint."""
        with _seeded(seed):
            return *(self._plain if self.plain else self._repaired)(problem), 0.0

    def _repaired(self, problem: Problem) -> tuple[Ints, Floats]:
        def decoded(x: Floats) -> tuple[Ints, Floats]:
            return repaired(problem, *_split(problem, x))

        ga = self._ga(problem, decoded, least=0.0)
        starts = [greedy_choice(problem), uniform_choice(problem)]
        for row, (levels, shares) in enumerate(starts):
            weights = shares - problem.at(problem.needs, levels)
            weights = np.maximum(weights, 0.0) / max(float(weights.max()), 1e-12)
            ga.Chrom[row] = _encoded(ga, np.r_[levels[problem.levels > 1], weights])
        x, _ = ga.run()
        levels, shares = (found[0] for found in decoded(x[None]))
        # Genes round the starting plans; the unrounded ones still stand.
        plans = [(levels, hand_out(problem, levels, shares)), *starts]
        return max(plans, key=lambda plan: problem.mean_accuracies(*plan))

    def _plain(self, problem: Problem) -> tuple[Ints, Floats]:
        def excess(x: Floats) -> tuple[float, float, float]:
            levels, shares = _split(problem, x[None])
            memory = float(problem.at(problem.memory, levels).sum()) / problem.memory_bytes
            too_few = problem.min_iterations - problem.iterations(levels, shares).min()
            return float(shares.sum()) - 1, memory - 1, float(too_few)

        constraints = [lambda x, i=i: excess(x)[i] for i in range(3)]
        decoded = partial(_split, problem)
        ga = self._ga(problem, decoded, least=problem.min_share, constraint_ueq=constraints)
        x, _ = ga.run()
        for over, what in zip(excess(x), ("shares", "memory", "iterations"), strict=True):
            if over > ROUNDING:
                raise NoPlan(
                    f"solver genetic without repair: its best individual breaks the limit of "
                    f"{what} by {over:.3g}; use it with repair"
                )
        levels, shares = _split(problem, x[None])
        return levels[0], shares[0]

    def _ga(self, problem: Problem, decoded: Any, least: float, **more: Any) -> Any:
        """The algorithm over one gene group a level (if there are several), then a share each."""

        def loss(x: Floats) -> Floats:
            return -problem.mean_accuracies(*decoded(x))

        loss.mode = "vectorization"  # type: ignore[attr-defined]
        several = problem.levels[problem.levels > 1]
        return _scikit_opt()(
            func=loss,
            n_dim=len(several) + len(problem),
            size_pop=self.size_pop,
            max_iter=self.max_iter,
            prob_mut=self.prob_mut,
            lb=np.r_[np.zeros(len(several)), np.full(len(problem), least)],
            ub=np.r_[several - 1.0, np.full(len(problem), max(1.0, least + _PRECISION))],
            precision=np.r_[np.ones(len(several)), np.full(len(problem), _PRECISION)],
            **more,
        )


def _split(problem: Problem, x: Floats) -> tuple[Ints, Floats]:
    """Levels, and shares or weights, of individuals of shape (plans, variables)."""
    several = problem.levels > 1
    levels = np.zeros((len(x), len(problem)), dtype=np.int64)
    levels[:, several] = np.rint(x[:, : several.sum()])
    return levels, x[:, several.sum() :]


def _encoded(ga: Any, x: Floats) -> NDArray[np.int64]:
    """The genes of an individual: each variable as a Gray code, the highest bit first."""
    genes = []
    for value, low, high, step, whole, size in zip(
        x, ga.lb, ga.ub, ga.precision, ga.int_mode_, ga.Lind, strict=True
    ):
        top = 2 ** int(size) - 1
        reach = top * step if whole else high - low
        number = min(int(np.rint((value - low) / reach * top)), top)
        gray = number ^ (number >> 1)
        genes += [gray >> bit & 1 for bit in range(int(size) - 1, -1, -1)]
    return np.array(genes)


def repaired(problem: Problem, levels: Ints, weights: Floats) -> tuple[Ints, Floats]:
    """Levels and shares, both of shape (plans, N), from levels and weights of that shape.

    While a plan takes too much memory, the application that takes most of what can still shrink
    goes to its next lighter level. While the least shares then sum to more than 1, the one with the
    largest goes to its next faster level that takes no more memory. Plans that this does not save
    take feasible levels. Each application gets its least share and by weight a part of the rest.
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
    for i, (row, others) in enumerate(zip(table, other, strict=True)):
        for level in range(len(row)):
            lower = row < row[level]
            if no_more:
                lower &= others <= others[level]
            if lower.any():
                near = np.flatnonzero(lower & (row == row[lower].max()))
                found[i, level] = near[others[near].argmin()]
    return found


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """scikit-opt takes no seed and draws from numpy's global generator: lend it, then restore."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


def _scikit_opt() -> Any:
    """The class. Its import sets how the whole process starts others, or fails if that is set."""
    method = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        from sko.GA import GA
    finally:
        multiprocessing.set_start_method(method, force=True)
    return GA
