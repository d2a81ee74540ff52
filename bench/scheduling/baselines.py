"""Schedulers to compare with: equal shares, Ekya's thief, RECL's recent gains."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from bench.scheduling.application import Application
from bench.scheduling.assignment import Plan, make_plan
from bench.scheduling.problem import (
    ROUNDING,
    Floats,
    Ints,
    Problem,
    mean_accuracy,
    whole_iterations,
)
from bench.scheduling.shares import by_weight


@dataclass(frozen=True)
class Uniform:
    """Equal shares; the least sparse level that fits an equal part of the memory.

    Where such levels do not fit an equal part, or are too slow, all take feasible levels; shares
    are as equal as the least shares allow.
    """

    name = "uniform"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The plan; the seed has no influence."""
        began = time.process_time()
        levels, shares = uniform_choice(problem)
        return make_plan(problem, levels, shares, self.name, time.process_time() - began)


def uniform_choice(problem: Problem) -> tuple[Ints, Floats]:
    """Levels and shares of the uniform plan, both of shape (N,)."""
    part = problem.memory_bytes / len(problem) * (1 + ROUNDING)
    fits = problem.memory <= part
    levels = fits.argmax(1)
    if not (fits.any(1).all() and problem.fits(levels)):
        levels = problem.feasible_levels
    return levels, by_weight(np.ones(len(problem)), problem.at(problem.needs, levels))


@dataclass(frozen=True)
class Recl:
    """Shares by recent accuracy gain, as in RECL (Khani et al., NSDI 2023); sparsity as uniform.

    RECL gives device time to the jobs that gained most accuracy in the last rounds. Simplified:
    one decision a window, no model zoo and no reuse of models, and the recent gain is the one that
    an equal share is predicted to bring. No share is below the least share (RECL: 0.01).
    """

    name = "recl"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The plan; the seed has no influence."""
        began = time.process_time()
        levels, fair = uniform_choice(problem)
        after = problem.accuracies(levels, problem.iterations(levels, fair))
        gain = after - problem.at(problem.start, levels)
        shares = by_weight(np.maximum(gain, 0.0), problem.at(problem.needs, levels))
        return make_plan(problem, levels, shares, self.name, time.process_time() - began)


@dataclass(frozen=True)
class Ekya:
    """Micro-profiling and the thief of Ekya (Bhardwaj et al., NSDI 2022).

    Each candidate level of each application is first trained for some iterations; the device
    seconds of that are taken from the window. Then, from fair shares, each job steals quanta from
    each other one while the mean of predicted accuracies rises; at any shares each job picks its
    best candidate. Simplified: profiles are taken to predict as well as ours do; candidates are
    levels only (no inference configurations: inference has no share here); where profiling all
    would take more than ``most_profiling`` of the window, fewer levels, evenly spaced, are
    candidates, for Ekya drops unpromising configurations too; the memory limit is added.

    profiling_iterations : of each candidate
    quantum : of share, that is stolen at a time
    """

    profiling_iterations: int = 5
    most_profiling: float = 0.25
    quantum: float = 0.05
    name = "ekya"

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The plan; the seed has no influence."""
        began = time.process_time()
        candidates, cost = self._profiled(problem)
        rest = replace(problem, window_s=problem.window_s - cost)
        levels, shares = self._stolen(rest, problem.feasible_levels, candidates)
        spent = time.process_time() - began
        return make_plan(problem, levels, shares, self.name, spent, profiling_s=cost)

    def _profiled(self, problem: Problem) -> tuple[list[Ints], float]:
        """Candidate levels of each application, and seconds of the device to profile them.

        The feasible levels are always candidates: there is a plan to start from. If profiling
        even those alone would take too long, they are taken unprofiled.
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
            if cost <= self.most_profiling * problem.window_s and _left_enough(problem, cost):
                return chosen, cost
        return [np.array([level]) for level in base], 0.0

    def _stolen(self, problem: Problem, base: Ints, candidates: list[Ints]) -> tuple[Ints, Floats]:
        """Thief scheduling over the candidates, from feasible levels; levels and shares."""
        shares = by_weight(np.ones(len(problem)), problem.at(problem.needs, base))
        levels = _best_at(problem, candidates, base, shares)
        reached = mean_accuracy(problem, levels, shares)
        for thief in range(len(problem)):
            for victim in range(len(problem)):
                while victim != thief:
                    trial = shares.copy()
                    trial[thief] += self.quantum
                    trial[victim] -= self.quantum
                    if trial[victim] < problem.needs[victim, base[victim]]:
                        break
                    picked = _best_at(problem, candidates, base, trial)
                    got = mean_accuracy(problem, picked, trial)
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
