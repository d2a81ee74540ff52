"""The scheduling problem, which sparsity and which share of the device each application gets, and
its solutions: plans, solvers, and the check that a plan keeps the constraints.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import BenchError
from bench.scheduling.application import Application, Strict, saturating

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Entry = TypeVar("Entry", np.float64, np.int64)
Choice = tuple[Ints, Floats, float]
"""Levels and shares, both of shape (N,), and the seconds of the window that profiling takes."""

ROUNDING = 1e-9
"""Sums of shares and products of share, window and seconds are exact but for this, relative."""


@dataclass(frozen=True)
class Problem:
    """Applications that share a device and one retraining window.

    Choose a level of sparsity and a share ``r`` of the device for each application ``i`` of N::

        maximise   (1/N) sum_i accuracy_i(s_i, T_i),   T_i = floor(r_i W / tau_i(s_i))
        subject to sum_i r_i <= 1,  r_i >= min_share,
                   sum_i memory_i(s_i) <= M,  T_i >= min_iterations

    where W is ``window_s`` and M ``memory_bytes``. Arrays below have shape (N, levels); where an
    application has fewer levels than another, its row ends with infinite seconds and memory.
    Raises BenchError that names the constraint if no choice fulfils them all.
    """

    applications: tuple[Application, ...]
    window_s: float
    memory_bytes: float
    min_iterations: int = 1
    min_share: float = 0.05

    def __post_init__(self) -> None:
        if not self.applications:
            raise BenchError("no applications to schedule; name at least one")
        if not 0 < self.window_s <= 1e9:
            raise BenchError(f"window {self.window_s} s: give seconds above 0, at most 1e9")
        if self.min_iterations < 1:
            raise BenchError(f"least iterations {self.min_iterations}: give 1 or more")
        if not 0 < self.min_share <= 1:
            raise BenchError(f"least share {self.min_share}: give a share above 0, at most 1")
        _ = self.feasible_levels  # raises if there are none

    def __len__(self) -> int:
        return len(self.applications)

    @cached_property
    def levels(self) -> Ints:
        """Number of levels of each application; shape (N,)."""
        return np.array([len(a.sparsities) for a in self.applications])

    @cached_property
    def seconds(self) -> Floats:
        """Seconds of the whole device that an iteration takes; shape (N, levels)."""
        return self._table("seconds_per_iteration", math.inf)

    @cached_property
    def memory(self) -> Floats:
        """Bytes; shape (N, levels)."""
        return self._table("memory_bytes", math.inf)

    @cached_property
    def start(self) -> Floats:
        """Accuracy before retraining; shape (N, levels)."""
        return self._table("start", 0.0)

    @cached_property
    def ceiling(self) -> Floats:
        """Accuracy after endless retraining; shape (N, levels)."""
        return self._table("accuracy", 0.0)

    @cached_property
    def half(self) -> Floats:
        """Iterations to half of the gain; shape (N,)."""
        return np.array([a.half_iterations for a in self.applications])

    @cached_property
    def needs(self) -> Floats:
        """The least share at which a level keeps the constraints; shape (N, levels)."""
        share = self.min_iterations * self.seconds / self.window_s
        return np.asarray(np.maximum(self.min_share, share))

    def _table(self, field: str, rest: float) -> Floats:
        table = np.full((len(self), int(self.levels.max())), rest)
        for row, application, count in zip(table, self.applications, self.levels, strict=True):
            row[:count] = getattr(application, field)
        return table

    def at(self, table: NDArray[Entry], levels: Ints) -> NDArray[Entry]:
        """The entries of a table at chosen levels of shape (..., N); same shape."""
        return np.asarray(table[np.arange(len(self)), levels])

    def iterations(self, levels: Ints, shares: Floats) -> Ints:
        """Iterations that fit the window at levels and shares of shape (..., N); same shape."""
        return whole_iterations(shares * self.window_s / self.at(self.seconds, levels))

    def accuracies(self, levels: Ints, iterations: Ints) -> Floats:
        """Predicted accuracies at levels and iterations of shape (..., N); same shape."""
        start, ceiling = self.at(self.start, levels), self.at(self.ceiling, levels)
        return np.asarray(saturating(start, ceiling, self.half, iterations))

    def mean_accuracies(self, levels: Ints, shares: Floats) -> Floats:
        """The objective at levels and shares of shape (..., N); shape (...)."""
        return np.asarray(self.accuracies(levels, self.iterations(levels, shares)).mean(-1))

    def fits(self, levels: Ints) -> NDArray[np.bool_]:
        """Whether levels of shape (..., N) leave shares and memory for all; shape (...)."""
        share = self.at(self.needs, levels).sum(-1) <= 1 + ROUNDING
        memory = self.at(self.memory, levels).sum(-1) <= self.memory_bytes * (1 + ROUNDING)
        return np.asarray(share & memory)

    @cached_property
    def feasible_levels(self) -> Ints:
        """Levels that keep every constraint, the sparsest ones if those do; shape (N,).

        Raises BenchError that names the constraint if there are none.
        """
        self._require_each()
        by_memory = np.lexsort((self.needs, self.memory))[:, 0]
        for levels in (self.levels - 1, by_memory, self.needs.argmin(1)):
            if self.fits(levels):
                return levels
        found = self._search()
        if found is None:
            raise BenchError(
                "memory and time: every choice of sparsities that fits the memory of "
                f"{self.memory_bytes:.4g} bytes is too slow for the window of {self.window_s:g} s; "
                "lengthen the window, take more memory or fewer applications"
            )
        return found

    def _require_each(self) -> None:
        """Each constraint can be kept if the others are left out."""
        count = len(self)
        if count * self.min_share > 1 + ROUNDING:
            raise BenchError(
                f"shares: {count} applications at a least share of {self.min_share:g} need "
                f"{count * self.min_share:g} of one device; take fewer applications or a lower "
                "least share"
            )
        least = float(self.memory.min(1).sum())
        if least > self.memory_bytes * (1 + ROUNDING):
            raise BenchError(
                f"memory: the applications need at least {least:.4g} bytes at the levels that "
                f"take least, and {self.memory_bytes:.4g} bytes are there; take sparser levels, "
                "fewer applications or a larger device"
            )
        needs = self.needs.min(1)
        if needs.sum() > 1 + ROUNDING:
            worst = int(needs.argmax())
            left = max(1 - (needs.sum() - needs[worst]), 0.0)
            raise BenchError(
                f"time: application {self.applications[worst].name!r} needs a share of "
                f"{needs[worst]:.3g} for {self.min_iterations} iterations of "
                f"{self.seconds[worst].min():g} s in the window of {self.window_s:g} s, and the "
                f"others leave {left:.3g}; lengthen the window, ask for fewer iterations or take "
                "fewer applications"
            )

    def _search(self) -> Ints | None:
        """Feasible levels where memory and time pull apart: all best pairs of share and memory."""
        share, memory = np.zeros(1), np.zeros(1)
        chosen: Ints = np.zeros((1, 0), dtype=np.int64)
        for needs, bytes_, count in zip(self.needs, self.memory, self.levels, strict=True):
            level = np.tile(np.arange(count), len(share))
            before = np.repeat(np.arange(len(share)), count)
            share, memory = share[before] + needs[level], memory[before] + bytes_[level]
            order = np.lexsort((memory, share))
            lowest = np.minimum.accumulate(memory[order])
            order = order[np.r_[True, lowest[1:] < lowest[:-1]]]
            fits = memory[order] <= self.memory_bytes * (1 + ROUNDING)
            order = order[fits & (share[order] <= 1 + ROUNDING)]
            if not len(order):
                return None
            share, memory = share[order], memory[order]
            chosen = np.c_[chosen[before[order]], level[order]]
        return np.asarray(chosen[0])


def whole_iterations(exact: ArrayLike) -> Ints:
    """Whole iterations of a fractional number; 600 steps of 0.1 s fit 60 s in spite of rounding."""
    exact = np.asarray(exact, dtype=float)
    return np.asarray(np.floor(exact + ROUNDING * np.maximum(exact, 1.0)), dtype=np.int64)


class NoPlan(BenchError):
    """A solver ended without a plan that keeps the constraints."""


class Assignment(Strict):
    """What one application gets.

    share : of the device, in (0, 1]
    iterations : of retraining, whole, that fit the window at this share
    memory_bytes : while retraining, without the runtime's own share
    accuracy : predicted at the end of the window, in [0, 1]
    """

    name: str
    sparsity: float
    share: float
    iterations: int
    memory_bytes: float
    accuracy: float


class Plan(Strict):
    """Assignments in the order of the applications.

    mean_accuracy : over the applications, predicted
    cpu_s : CPU seconds of this process that the decision took
    profiling_s : seconds of the window that the device spends before the assignments start
    fallback : what the solver could not do as it is meant to, and did instead; empty if nothing
    """

    assignments: tuple[Assignment, ...]
    mean_accuracy: float
    solver: str
    cpu_s: float
    profiling_s: float = 0.0
    fallback: str = ""


class Solver(ABC):
    """Turns a problem into a plan that keeps its constraints."""

    name: ClassVar[str]

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The plan; equal seeds give equal plans but for their CPU time. May raise `NoPlan`."""
        began = time.process_time()
        choice = self.choose(problem, seed)
        return make_plan(problem, choice, self.name, time.process_time() - began)

    @abstractmethod
    def choose(self, problem: Problem, seed: int) -> Choice:
        """The plan's levels, shares and seconds of profiling."""


def make_plan(problem: Problem, choice: Choice, solver: str, cpu_s: float) -> Plan:
    """The plan of a choice; its iterations fit what profiling leaves of the window.

    Raises RuntimeError if a solver breaks a constraint: no such plan leaves this package.
    """
    levels, shares, profiling_s = choice
    left = problem.window_s - profiling_s
    iterations = whole_iterations(shares * left / problem.at(problem.seconds, levels))
    accuracies = problem.accuracies(levels, iterations)
    plan = Plan(
        assignments=tuple(
            Assignment(
                name=application.name,
                sparsity=application.sparsities[levels[i]],
                share=float(shares[i]),
                iterations=int(iterations[i]),
                memory_bytes=application.memory_bytes[levels[i]],
                accuracy=float(accuracies[i]),
            )
            for i, application in enumerate(problem.applications)
        ),
        mean_accuracy=float(accuracies.mean()),
        solver=solver,
        cpu_s=cpu_s,
        profiling_s=profiling_s,
    )
    if broken := check(problem, plan):
        raise RuntimeError(f"solver {solver!r} broke its constraints: {'; '.join(broken)}")
    return plan


def check(problem: Problem, plan: Plan) -> list[str]:
    """The constraints that a plan breaks, one line each; none if it keeps them all."""
    names = [a.name for a in problem.applications]
    if [a.name for a in plan.assignments] != names:
        return [f"applications: the plan must assign exactly {', '.join(names)}"]
    broken = []
    share = sum(a.share for a in plan.assignments)
    if share > 1 + ROUNDING:
        broken.append(f"shares: they sum to {share:.6g}, more than 1")
    memory = sum(a.memory_bytes for a in plan.assignments)
    if memory > problem.memory_bytes * (1 + ROUNDING):
        broken.append(f"memory: {memory:.6g} bytes, more than {problem.memory_bytes:.6g}")
    left = problem.window_s - plan.profiling_s
    for application, given in zip(problem.applications, plan.assignments, strict=True):
        if given.sparsity not in application.sparsities:
            broken.append(f"{given.name}: sparsity {given.sparsity:g} is none of its levels")
            continue
        level = application.sparsities.index(given.sparsity)
        if given.memory_bytes != application.memory_bytes[level]:
            broken.append(f"{given.name}: memory is not that of sparsity {given.sparsity:g}")
        if given.share < problem.min_share * (1 - ROUNDING):
            broken.append(f"{given.name}: share {given.share:.6g} below {problem.min_share:g}")
        exact = given.share * left / application.seconds_per_iteration[level]
        if given.iterations != whole_iterations(exact):
            broken.append(f"{given.name}: {given.iterations} iterations where {exact:.6g} fit")
        if given.iterations < problem.min_iterations:
            least = problem.min_iterations
            broken.append(f"{given.name}: {given.iterations} of at least {least} iterations")
    return broken
