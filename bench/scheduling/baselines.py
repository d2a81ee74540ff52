"""Schedulers without search (greedy, equal shares, Ekya's thief, RECL's recent gains), and how they
divide the device: by weights above floors, and what is left over to where it helps most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bench.scheduling.application import Application
from bench.scheduling.problem import (
    ROUNDING,
    Choice,
    Floats,
    Ints,
    Plan,
    Problem,
    Solver,
    whole_iterations,
)

_ROUNDS = 50
"""Number of parts, about, in which the unused share is handed out."""

_STEPS = (0, 1, 2, 4, 8, 16, 32)
"""Quanta of share that one step may add: a level may pay only with several of them."""

_FREE = 1e-6
"""Share at which a step that costs none is priced, so that free gains come first."""


def by_weight(weights: Floats, floors: Floats) -> Floats:
    """Shares that sum to 1, proportional to weights but none below its floor; shape (N,).

    ``r_i = max(floor_i, c w_i)`` with the ``c`` that makes the sum 1. The floors must sum to 1 at
    most; weights are 0 or more, and equal ones are taken if all are 0.
    """
    weights = weights if weights.max() > 0 else np.ones_like(weights)
    raised = np.zeros(len(weights), dtype=bool)
    for _ in weights:
        free = weights[~raised].sum()
        scale = (1 - floors[raised].sum()) / free if free > 0 else 0.0
        low = ~raised & (scale * weights < floors)
        if not low.any():
            break
        raised |= low
    shares = np.where(raised, floors, scale * weights)
    if raised.all():  # nobody may take more by weight: what is left is divided equally
        shares = floors + (1 - floors.sum()) / len(floors)
    return np.asarray(shares)


def hand_out(problem: Problem, levels: Ints, shares: Floats) -> Floats:
    """Shares at which no application does less, and what was idle does more; shape (N,).

    Each share is first cut to what its whole iterations take. What is left over goes, part by
    part, to the application that gains most accuracy per share. What completes no iteration
    stays idle.
    """
    each = problem.at(problem.seconds, levels) / problem.window_s  # the share of one iteration
    floors = problem.at(problem.needs, levels)
    count = problem.iterations(levels, shares)
    shares = np.maximum(floors, count * each)
    part = (1 - shares.sum()) / _ROUNDS
    while part > 0:
        left = 1 - shares.sum()
        more = problem.iterations(levels, np.maximum(shares + part, (count + 1) * each))
        extra = more * each - shares
        gain = problem.accuracies(levels, more) - problem.accuracies(levels, count)
        rate = np.where((extra <= left) & (gain > 0), gain / np.maximum(extra, 1e-12), -1.0)
        best = int(rate.argmax())
        if rate[best] > 0:
            count[best] = more[best]
            shares[best] = more[best] * each[best]
        elif part > each.min():
            part /= 2
        else:
            break
    return shares


@dataclass(frozen=True)
class Greedy(Solver):
    """Start with the sparsest levels and the least shares; take the best step while one gains.

    A step moves one application to any of its levels and adds some quanta of share; the best one
    gains most accuracy per share. Where the sparsest levels break a constraint, it starts from
    others that keep them all.
    """

    quantum: float = 0.01
    name = "greedy"

    def choose(self, problem: Problem, seed: int) -> Choice:
        return *greedy_choice(problem, self.quantum), 0.0


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


class Uniform(Solver):
    """Equal shares; the least sparse level that fits an equal part of the memory.

    Where such levels do not fit an equal part, or are too slow, all take feasible levels; shares
    are as equal as the least shares allow.
    """

    name = "uniform"

    def choose(self, problem: Problem, seed: int) -> Choice:
        return *uniform_choice(problem), 0.0


def uniform_choice(problem: Problem) -> tuple[Ints, Floats]:
    """Levels and shares of the uniform plan, both of shape (N,)."""
    part = problem.memory_bytes / len(problem) * (1 + ROUNDING)
    fits = problem.memory <= part
    levels = fits.argmax(1)
    if not (fits.any(1).all() and problem.fits(levels)):
        levels = problem.feasible_levels
    return levels, by_weight(np.ones(len(problem)), problem.at(problem.needs, levels))


class Recl(Solver):
    """Shares by recent accuracy gain, as in RECL (Khani et al., NSDI 2023); sparsity as uniform.

    RECL gives device time to the jobs that gained most accuracy in the last rounds. Simplified:
    one decision a window, no model zoo and no reuse of models, and the recent gain is the one that
    an equal share is predicted to bring. No share is below the least share (RECL: 0.01).
    """

    name = "recl"

    def choose(self, problem: Problem, seed: int) -> Choice:
        levels, fair = uniform_choice(problem)
        after = problem.accuracies(levels, problem.iterations(levels, fair))
        gain = after - problem.at(problem.start, levels)
        return levels, by_weight(np.maximum(gain, 0.0), problem.at(problem.needs, levels)), 0.0


@dataclass(frozen=True)
class Ekya(Solver):
    """Micro-profiling and the thief of Ekya (Bhardwaj et al., NSDI 2022).

    Each candidate level is first trained for ``profiling_iterations``, whose device seconds are
    taken from the window. Then, from fair shares, each job steals a ``quantum`` of share at a time
    from each other one while the mean of predicted accuracies rises; at any shares each job picks
    its best candidate. Simplified: profiles are taken to predict as well as ours do; candidates are
    levels only (inference has no share here); where profiling all would take more than
    ``most_profiling`` of the window, fewer levels, evenly spaced, are candidates, for Ekya drops
    unpromising configurations too; the memory limit is added.

    Where even one level of each job takes more than that, there is nothing to choose by profiles:
    the plan says so in its ``fallback``. That level is then profiled all the same and paid for,
    where the window leaves time to retrain; with ``charge_fallback=False`` it is taken unprofiled,
    and the shares are stolen by predictions that nobody paid for.
    """

    profiling_iterations: int = 5
    most_profiling: float = 0.25
    quantum: float = 0.05
    charge_fallback: bool = True
    name = "ekya"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        plan = super().solve(problem, seed)
        return plan.model_copy(update={"fallback": self._fallback(problem, plan.profiling_s)})

    def choose(self, problem: Problem, seed: int) -> Choice:
        candidates, cost = self._profiled(problem)
        rest = replace(problem, window_s=problem.window_s - cost)
        return *self._stolen(rest, problem.feasible_levels, candidates), cost

    def _profiled(self, problem: Problem) -> tuple[list[Ints], float]:
        """Candidate levels of each application, and seconds of the device to profile them.

        The feasible levels are always candidates: there is a plan to start from. If profiling
        even those alone takes too long, they are the only ones.
        """
        base = problem.feasible_levels
        for count in range(int(problem.levels.max()), 0, -1):
            candidates = [
                np.unique(np.r_[np.rint(np.linspace(0, have - 1, min(count, have))), first])
                for have, first in zip(problem.levels, base, strict=True)
            ]
            chosen = [each.astype(np.int64) for each in candidates]
            seconds = sum(float(problem.seconds[i, each].sum()) for i, each in enumerate(chosen))
            cost = self.profiling_iterations * seconds
            if self._fits(problem, cost):
                return chosen, cost
        cost = self._least_cost(problem)
        paid = self._fits(problem, cost) or (
            self.charge_fallback and cost < problem.window_s and _left_enough(problem, cost)
        )
        return [np.array([level]) for level in base], cost if paid else 0.0

    def _fits(self, problem: Problem, cost: float) -> bool:
        return cost <= self.most_profiling * problem.window_s and _left_enough(problem, cost)

    def _least_cost(self, problem: Problem) -> float:
        """Seconds of the device to profile the feasible levels alone."""
        seconds = problem.at(problem.seconds, problem.feasible_levels)
        return float(self.profiling_iterations * seconds.sum())

    def _fallback(self, problem: Problem, paid_s: float) -> str:
        if self._fits(problem, self._least_cost(problem)):
            return ""
        done = "profiled nevertheless" if paid_s > 0 else "taken unprofiled"
        return (
            f"profiling one level of each job takes more than {self.most_profiling:.0%} of what "
            f"the window leaves: no other level is a candidate, and this one is {done}"
        )

    def _stolen(self, problem: Problem, base: Ints, candidates: list[Ints]) -> tuple[Ints, Floats]:
        """Thief scheduling over the candidates, from feasible levels; levels and shares."""
        shares = by_weight(np.ones(len(problem)), problem.at(problem.needs, base))
        levels = _best_at(problem, candidates, base, shares)
        reached = float(problem.mean_accuracies(levels, shares))
        for thief in range(len(problem)):
            for victim in range(len(problem)):
                while victim != thief:
                    trial = shares.copy()
                    trial[thief] += self.quantum
                    trial[victim] -= self.quantum
                    if trial[victim] < problem.needs[victim, base[victim]]:
                        break
                    picked = _best_at(problem, candidates, base, trial)
                    got = float(problem.mean_accuracies(picked, trial))
                    if got <= reached:
                        break
                    shares, levels, reached = trial, picked, got
        return levels, shares


def _left_enough(problem: Problem, cost: float) -> bool:
    """Whether the feasible levels still do the least iterations in what is left of the window."""
    seconds = problem.at(problem.seconds, problem.feasible_levels)
    needs = problem.min_iterations * seconds / (problem.window_s - cost)
    return float(np.maximum(needs, problem.min_share).sum()) <= 1


def _best_at(problem: Problem, candidates: list[Ints], base: Ints, shares: Floats) -> Ints:
    """Each job's best candidate at its share, one job after the other while memory lasts."""
    levels = base.copy()
    memory = float(problem.at(problem.memory, levels).sum())
    for i, application in enumerate(problem.applications):
        room = problem.memory_bytes * (1 + ROUNDING) - memory + problem.memory[i, levels[i]]
        best = _value(problem, application, int(levels[i]), float(shares[i]))
        for level in candidates[i]:
            if problem.memory[i, level] > room or problem.needs[i, level] > shares[i]:
                continue
            value = _value(problem, application, int(level), float(shares[i]))
            if value > best:
                memory += problem.memory[i, level] - problem.memory[i, levels[i]]
                levels[i], best = level, value
    return levels


def _value(problem: Problem, application: Application, level: int, share: float) -> float:
    exact = share * problem.window_s / application.seconds_per_iteration[level]
    return float(application.accuracy_after(level, whole_iterations(exact)))
