"""The solvers by name, and the choice between them."""

from __future__ import annotations

from bench.errors import BenchError, did_you_mean
from bench.scheduling.baselines import Ekya, Greedy, Recl, Uniform
from bench.scheduling.exact import Exact, TooLarge
from bench.scheduling.genetic import Genetic
from bench.scheduling.problem import Plan, Problem, Solver

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
