"""A plan: what each application gets, and whether that keeps the problem's constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.scheduling.problem import Floats, Ints, Problem


class NoPlan(BenchError):
    """A solver ended without a plan that keeps the constraints."""


class _Strict(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    pass


class Assignment(_Strict):
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


class Plan(_Strict):
    """Assignments in the order of the applications.

    mean_accuracy : over the applications, predicted
    cpu_s : CPU seconds of this process that the decision took
    profiling_s : seconds of the window that the device spends before the assignments start
    """

    assignments: tuple[Assignment, ...]
    mean_accuracy: float
    solver: str
    cpu_s: float
    profiling_s: float = 0.0


def make_plan(
    problem: Problem,
    levels: Ints,
    shares: Floats,
    solver: str,
    cpu_s: float,
    profiling_s: float = 0.0,
) -> Plan:
    """The plan of chosen levels and shares, both of shape (N,).

    With ``profiling_s`` the iterations are those that fit what is left of the window. Raises
    RuntimeError if a solver breaks a constraint: no such plan leaves this package.
    """
    from bench.scheduling.problem import whole_iterations

    left = problem.window_s - profiling_s
    iterations = whole_iterations(shares * left / problem.at(problem.seconds, levels))
    accuracies = problem.accuracies(levels, iterations)
    plan = Plan(
        assignments=tuple(
            Assignment(
                name=application.name,
                sparsity=application.sparsities[level],
                share=float(share),
                iterations=int(count),
                memory_bytes=application.memory_bytes[level],
                accuracy=float(accuracy),
            )
            for application, level, share, count, accuracy in zip(
                problem.applications, levels, shares, iterations, accuracies, strict=True
            )
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
    from bench.scheduling.problem import ROUNDING, whole_iterations

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
