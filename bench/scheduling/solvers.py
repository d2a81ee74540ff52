"""The solvers by name, and the choice between them."""

from __future__ import annotations

from typing import Protocol

from bench.errors import BenchError, did_you_mean
from bench.scheduling.assignment import Plan
from bench.scheduling.baselines import Ekya, Recl, Uniform
from bench.scheduling.exact import Exact, TooLarge
from bench.scheduling.genetic import Genetic
from bench.scheduling.greedy import Greedy
from bench.scheduling.problem import Problem


class Solver(Protocol):
    """Anything that turns a problem into a plan that keeps its constraints."""

    @property
    def name(self) -> str:
        """As in `SOLVERS`."""

    def solve(self, problem: Problem, seed: int = 0) -> Plan:
        """The plan; equal seeds give equal plans but for their CPU time."""


SOLVERS: dict[str, Solver] = {
    solver.name: solver for solver in (Exact(), Genetic(), Greedy(), Uniform(), Ekya(), Recl())
}


def solve(problem: Problem, name: str, seed: int = 0) -> Plan:
    """The plan of a solver by its name; BenchError if there is none of that name."""
    if name not in SOLVERS:
        raise BenchError(f"unknown solver {name!r}: {did_you_mean(name, SOLVERS)}")
    return SOLVERS[name].solve(problem, seed)


def solve_best(problem: Problem, seed: int = 0) -> tuple[Plan, str]:
    """The exact plan where it is found fast, else the genetic one; and why it was that one."""
    try:
        return Exact().solve(problem, seed), "few enough combinations of levels"
    except TooLarge as why:
        return Genetic().solve(problem, seed), str(why)
