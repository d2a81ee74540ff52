"""A greedy plan: always the step that gains most accuracy for its share."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from bench.scheduling.assignment import Plan, make_plan
from bench.scheduling.problem import ROUNDING, Floats, Ints, Problem, whole_iterations
from bench.scheduling.shares import hand_out

_STEPS = (0, 1, 2, 4, 8, 16, 32)
"""Quanta of share that one step may add: a level may pay only with several of them."""

_FREE = 1e-6
"""Share at which a step that costs none is priced, so that free gains come first."""


@dataclass(frozen=True)
class Greedy:
    """Start with the sparsest levels and the least shares; take the best step while one gains.

    A step moves one application to any of its levels and adds some quanta of share; the best one
    gains most accuracy per share. Where the sparsest levels break a constraint, it starts from
    others that keep them all.
    """

    quantum: float = 0.01
    name = "greedy"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The greedy plan; the seed has no influence."""
        began = time.process_time()
        levels, shares = greedy_choice(problem, self.quantum)
        return make_plan(problem, levels, shares, self.name, time.process_time() - began)


def greedy_choice(problem: Problem, quantum: float = 0.01) -> tuple[Ints, Floats]:
    """Levels and shares of the greedy plan, both of shape (N,)."""
    levels = problem.feasible_levels.copy()
    shares = problem.at(problem.needs, levels)
    count = len(problem)
    # What each application could do next: gain, share after it and bytes after it, for each level
    # and step. Only the application that moved changes; what still fits changes for all.
    moves = [_moves(problem, i, int(levels[i]), float(shares[i]), quantum) for i in range(count)]
    while True:
        left = max(1 - shares.sum(), 0.0)  # not below 0 by rounding: steps without share stay
        used = problem.at(problem.memory, levels)
        room = problem.memory_bytes * (1 + ROUNDING) - used.sum() + used
        best, best_rate = None, 0.0
        for i, (gain, after) in enumerate(moves):
            extra = after - shares[i]
            fits = (extra <= left) & (problem.memory[i] <= room[i])[:, None] & (gain > 1e-12)
            rate = np.where(fits, gain / np.maximum(extra, _FREE), 0.0)
            place = int(rate.argmax())
            if rate.flat[place] > best_rate:
                best, best_rate = (i, place), float(rate.flat[place])
        if best is None:
            return levels, hand_out(problem, levels, shares)
        i, place = best
        level, step = divmod(place, len(_STEPS))
        shares[i] = moves[i][1][level, step]
        levels[i] = level
        moves[i] = _moves(problem, i, level, float(shares[i]), quantum)


def _moves(
    problem: Problem, i: int, level: int, share: float, quantum: float
) -> tuple[Floats, Floats]:
    """Gains, and shares afterwards, of all steps of one application; shape (levels, steps)."""
    application = problem.applications[i]
    each = problem.seconds[i] / problem.window_s
    after = np.maximum(share, problem.needs[i])[:, None] + quantum * np.array(_STEPS)
    count = whole_iterations(np.where(np.isfinite(after), after / each[:, None], 0.0))
    now = application.accuracy_after(level, whole_iterations(share / each[level]))
    gain = np.full(after.shape, -1.0)
    for other in range(len(application.sparsities)):
        gain[other] = application.accuracy_after(other, count[other]) - now
    return gain, after
