"""The problem and its plans: iterations that fit, what is infeasible and why, broken plans."""

from __future__ import annotations

import numpy as np
import pytest

from bench.errors import BenchError
from bench.scheduling.baselines import by_weight, hand_out
from bench.scheduling.problem import Problem, check, make_plan
from bench.scheduling.solvers import SOLVERS, solve


def test_600_steps_of_a_tenth_of_a_second_fit_60_seconds(make_application):
    problem = Problem((make_application(),), 60.0, 3e9)
    level = np.array([1])
    assert problem.iterations(level, np.array([1.0])) == [600]
    for count in range(1, 600):  # whatever the rounding of share, window and seconds
        assert problem.iterations(level, np.array([count * 0.1 / 60])) == [count]
        assert problem.iterations(level, np.array([(count - 0.001) * 0.1 / 60])) == [count - 1]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"memory_bytes": 1.5e9}, ["memory:", "at least 2e+09", "1.5e+09"]),
        ({"window_s": 1.0, "min_iterations": 9}, ["time:", "'a'", "0.9", "leave 0.775"]),
        ({"min_share": 0.6}, ["shares:", "2 applications", "0.6", "1.2"]),
        ({"window_s": 0.0}, ["window 0.0 s"]),
        ({"window_s": float("nan")}, ["window nan s"]),
        ({"min_iterations": 0}, ["least iterations 0"]),
        ({"applications": ()}, ["no applications"]),
    ],
)
def test_an_infeasible_problem_names_the_constraint(make_application, changes, parts):
    pair = (make_application(), make_application(name="b", seconds_per_iteration=(0.05, 0.025)))
    given = {"applications": pair, "window_s": 60.0, "memory_bytes": 9e9, **changes}
    with pytest.raises(BenchError) as error:
        Problem(**given)
    for part in parts:
        assert part in str(error.value)


def test_memory_and_time_that_pull_apart_are_told_from_a_problem_with_a_plan(make_application):
    odd = make_application(seconds_per_iteration=(0.1, 50.0))  # the light level is the slow one
    pair = (odd, odd.model_copy(update={"name": "b"}))
    with pytest.raises(BenchError, match="memory and time: every choice"):
        Problem(pair, 60.0, 2.5e9)
    problem = Problem(pair, 60.0, 3.5e9)
    assert sorted(problem.feasible_levels) == [0, 1]
    for name in SOLVERS:
        assert check(problem, solve(problem, name)) == []


def test_shares_by_weight_keep_floors_and_sum_to_one():
    shares = by_weight(np.array([8.0, 1.0, 1.0]), np.array([0.05, 0.3, 0.05]))
    assert shares == pytest.approx([0.7 * 8 / 9, 0.3, 0.7 / 9])
    assert by_weight(np.zeros(2), np.array([0.05, 0.7])) == pytest.approx([0.3, 0.7])
    assert by_weight(np.ones(2), np.array([0.5, 0.5])) == pytest.approx([0.5, 0.5])


def test_idle_share_becomes_iterations_and_no_plan_gets_worse(random_problem):
    for seed in range(20):
        problem = random_problem(seed)
        levels = problem.feasible_levels
        shares = by_weight(np.ones(6), problem.at(problem.needs, levels)) * 0.9
        shares = np.maximum(shares, problem.at(problem.needs, levels))
        before = problem.iterations(levels, shares)
        after_shares = hand_out(problem, levels, shares)
        after = problem.iterations(levels, after_shares)
        assert (after >= before).all()
        assert after.sum() > before.sum()
        assert after_shares.sum() <= 1 + 1e-9
        # Nothing that would fit is left.
        each = problem.at(problem.seconds, levels) / 60.0
        assert 1 - after_shares.sum() < each.min() + 1e-9


def test_check_names_each_broken_constraint(make_application):
    pair = (make_application(), make_application(name="b"))
    problem = Problem(pair, 60.0, 3e9, min_iterations=5)
    plan = make_plan(problem, (np.array([0, 1]), np.array([0.5, 0.5]), 0.0), "hand", 0.0)
    assert check(problem, plan) == []
    assert [a.iterations for a in plan.assignments] == [150, 300]
    first, second = plan.assignments

    def broken(**changes):
        changed = plan.model_copy(
            update={"assignments": (first.model_copy(update=changes), second)}
        )
        return "; ".join(check(problem, changed))

    assert "shares: they sum to 1.1" in broken(share=0.6)
    assert "share 0.01 below 0.05" in broken(share=0.01)
    assert "150 iterations where 120 fit" in broken(share=0.4)
    assert "0 of at least 5 iterations" in broken(iterations=0)
    assert "memory: 5e+09" in broken(memory_bytes=4e9)
    assert "sparsity 0.3 is none" in broken(sparsity=0.3)
    assert "must assign exactly a, b" in broken(name="c")
    with pytest.raises(RuntimeError, match="solver 'hand' broke"):
        make_plan(problem, (np.array([0, 0]), np.array([0.5, 0.5]), 0.0), "hand", 0.0)
