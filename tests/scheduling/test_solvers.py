"""Solvers: no constraint is broken, the exact one is exact, the genetic one is near it."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.scheduling import solvers
from bench.scheduling.baselines import Ekya
from bench.scheduling.exact import Exact, TooLarge
from bench.scheduling.genetic import Genetic
from bench.scheduling.problem import NoPlan, Problem, check
from bench.scheduling.solvers import SOLVERS, solve, solve_best

QUICK = {**SOLVERS, "genetic": Genetic(size_pop=20, max_iter=20)}


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 8),
    levels=st.integers(1, 8),
    least=st.sampled_from([1, 5, 40]),
    share=st.sampled_from([0.05, 0.1, 1 / 8]),
)
def test_no_solver_ever_breaks_a_constraint(random_problem, seed, count, levels, least, share):
    try:
        problem = random_problem(seed, count, levels, min_iterations=least, min_share=share)
    except BenchError:
        assume(False)
    best = Exact().solve(problem)
    for name, solver in QUICK.items():
        plan = solver.solve(problem, seed)
        assert check(problem, plan) == []
        assert plan.solver == name
        assert sum(a.share for a in plan.assignments) <= 1 + 1e-9
        assert sum(a.memory_bytes for a in plan.assignments) <= problem.memory_bytes * (1 + 1e-9)
        # Off the grid of shares there may be a little more than the exact solver finds on it.
        assert plan.mean_accuracy <= best.mean_accuracy * 1.005


def enumerated(problem: Problem, units: int) -> float:
    """The best mean over all levels and all shares in so many units, formula by formula."""
    best = -1.0
    apps = problem.applications
    for levels in itertools.product(*(range(len(a.sparsities)) for a in apps)):
        memory = sum(a.memory_bytes[k] for a, k in zip(apps, levels, strict=True))
        if memory > problem.memory_bytes:
            continue
        table = []
        for a, k in zip(apps, levels, strict=True):
            row = []
            for u in range(units + 1):
                count = math.floor(u / units * problem.window_s / a.seconds_per_iteration[k] + 1e-9)
                gain = max(a.accuracy[k] - a.start[k], 0) * count / (count + a.half_iterations)
                fits = u / units >= problem.min_share and count >= problem.min_iterations
                row.append(a.start[k] + gain if fits else -math.inf)
            table.append(row)
        for shares in itertools.product(range(1, units + 1), repeat=len(apps)):
            if sum(shares) <= units:
                value = sum(row[u] for row, u in zip(table, shares, strict=True))
                best = max(best, value / len(apps))
    return best


@pytest.mark.parametrize("count", [1, 2, 3])
def test_exact_equals_enumeration(random_problem, count):
    """50 problems a size, with tight and with loose memory, some with many least iterations."""
    for seed in range(50):
        least = 1 + 20 * (seed % 2)
        problem = random_problem(seed, count, 4 - count // 3, min_iterations=least)
        expected = enumerated(problem, 10)
        if expected == -1.0:
            with pytest.raises(NoPlan, match=r"no plan fits shares in steps of 0\.1"):
                Exact(quantum=0.1, polish=False).solve(problem)
            continue
        plan = Exact(quantum=0.1, polish=False).solve(problem)
        assert plan.mean_accuracy == pytest.approx(expected, abs=1e-12)
        assert Exact(quantum=0.1).solve(problem).mean_accuracy >= expected - 1e-12


def test_exact_equals_enumeration_where_levels_have_no_order(make_application):
    """Nothing about an application is monotone in its sparsity."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        apps = tuple(
            make_application(
                name=name,
                sparsities=(0.0, 0.4, 0.8),
                seconds_per_iteration=tuple(rng.uniform(0.05, 0.5, 3)),
                memory_bytes=tuple(rng.uniform(1e9, 3e9, 3)),
                accuracy=tuple(rng.uniform(0.5, 1.0, 3)),
                start=tuple(rng.uniform(0.0, 0.5, 3)),
                half_iterations=rng.uniform(1, 200),
            )
            for name in "abc"
        )
        least = sum(min(a.memory_bytes) for a in apps)
        problem = Problem(apps, 60.0, least + rng.uniform(0, 2e9))
        plan = Exact(quantum=0.1, polish=False).solve(problem)
        assert plan.mean_accuracy == pytest.approx(enumerated(problem, 10), abs=1e-12)


def test_exact_finds_a_plan_off_the_grid_where_none_is_on_it(make_application):
    """Three applications that need a third of the device each."""
    slow = [make_application(name=n, seconds_per_iteration=(20.0, 20.0)) for n in "abc"]
    problem = Problem(tuple(slow), 60.0, 9e9)
    with pytest.raises(NoPlan, match="take a finer step"):
        Exact(polish=False).solve(problem)
    plan = Exact().solve(problem)
    assert [a.iterations for a in plan.assignments] == [1, 1, 1]


def test_a_finer_grid_gains_next_to_nothing(random_problem):
    for seed in range(3):
        problem = random_problem(seed)
        coarse, fine = (Exact(quantum=q).solve(problem).mean_accuracy for q in (0.01, 0.0025))
        assert abs(fine / coarse - 1) < 0.001


def test_six_applications_are_decided_in_two_seconds_of_cpu(random_problem):
    for seed in range(5):
        problem = random_problem(seed)
        for name in ("exact", "genetic"):
            began = time.process_time()
            plan = solve(problem, name)
            spent = time.process_time() - began
            assert spent < 2.0
            assert plan.cpu_s <= spent + 1e-6


def test_the_genetic_solver_is_near_the_optimum_by_repair_and_good_starts(random_problem):
    """50 problems of 6 applications; plain scikit-opt, as published, on every tenth beside it."""
    gaps: list[float] = []
    plain: list[float] = []
    failed = 0
    for seed in range(50):
        problem = random_problem(seed)
        best = Exact().solve(problem).mean_accuracy
        plan = Genetic(max_iter=60).solve(problem, seed)
        assert check(problem, plan) == []
        gaps.append(1 - plan.mean_accuracy / best)
        if seed % 10 == 0:
            published = Genetic(plain=True, size_pop=50, max_iter=200, prob_mut=0.001)
            try:
                plain.append(1 - published.solve(problem, seed).mean_accuracy / best)
            except NoPlan:
                failed += 1
    print(
        f"\ngap to the exact optimum: genetic mean {np.mean(gaps):.2%}, largest {max(gaps):.2%}; "
        f"plain scikit-opt mean {np.mean(plain):.2%}, largest {max(plain):.2%}, "
        f"{failed} of {failed + len(plain)} broke a constraint"
    )
    assert np.mean(gaps) < 0.02
    assert np.mean(gaps) < np.mean(plain)


def test_plain_scikit_opt_says_which_constraint_it_breaks(random_problem):
    with pytest.raises(NoPlan, match=r"without repair: its best individual breaks the limit of"):
        Genetic(plain=True, size_pop=4, max_iter=1).solve(random_problem(0))


def test_equal_seeds_give_equal_plans_and_numpy_s_generator_is_left_alone(random_problem):
    problem = random_problem(1)
    np.random.seed(7)
    expected = np.random.random(3)
    np.random.seed(7)
    method = multiprocessing.get_start_method(allow_none=True)
    first, again = (Genetic(max_iter=10).solve(problem, 3).assignments for _ in range(2))
    assert first == again
    assert np.random.random(3).tolist() == expected.tolist()
    assert multiprocessing.get_start_method(allow_none=True) == method


def test_importing_scikit_opt_does_not_change_how_processes_start():
    import subprocess
    import sys

    code = (
        "import multiprocessing, sys\n"
        "from bench.scheduling.application import Application\n"
        "from bench.scheduling.genetic import Genetic\n"
        "from bench.scheduling.problem import Problem\n"
        "multiprocessing.set_start_method('spawn')\n"
        "one = Application(name='a', sparsities=(0.0, 0.5), seconds_per_iteration=(0.2, 0.1),"
        " memory_bytes=(2e9, 1e9), accuracy=(0.9, 0.8), start=(0.5, 0.4), half_iterations=99.0)\n"
        "Genetic(size_pop=4, max_iter=1).solve(Problem((one,), 60.0, 4e9))\n"
        "assert 'sko' in sys.modules and multiprocessing.get_start_method() == 'spawn'\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_odd_population_is_refused():
    with pytest.raises(BenchError, match="51 individuals"):
        Genetic(size_pop=51)


def test_uniform_gives_equal_shares_and_levels_that_fit_an_equal_part(make_application):
    pair = (make_application(), make_application(name="b", memory_bytes=(1.4e9, 1e9)))
    plan = solve(Problem(pair, 60.0, 3e9), "uniform")
    assert [(a.sparsity, a.share, a.iterations) for a in plan.assignments] == [
        (0.5, 0.5, 300),
        (0.0, 0.5, 150),
    ]


def test_recl_shares_by_recent_gain(make_application):
    """Gains at half of the device: 0.4 * 3/4 and 0.1 * 3/4."""
    pair = (make_application(), make_application(name="b", accuracy=(0.9, 0.5)))
    plan = solve(Problem(pair, 60.0, 2e9), "recl")
    assert [a.share for a in plan.assignments] == pytest.approx([0.8, 0.2])
    still = make_application(name="b", accuracy=(0.9, 0.4))  # gains nothing: the least share
    plan = solve(Problem((pair[0], still), 60.0, 2e9), "recl")
    assert [a.share for a in plan.assignments] == pytest.approx([0.95, 0.05])


def test_ekya_pays_for_profiling_and_then_steals(make_application):
    still = make_application(name="b", accuracy=(0.5, 0.4))  # retraining brings nothing
    problem = Problem((make_application(), still), 60.0, 4e9)
    plan = Ekya(profiling_iterations=10, quantum=0.1).solve(problem)
    assert plan.profiling_s == pytest.approx(10 * 2 * (0.2 + 0.1))
    assert [a.share for a in plan.assignments] == pytest.approx([0.9, 0.1])
    assert [a.sparsity for a in plan.assignments] == [0.0, 0.0]
    assert plan.assignments[0].iterations == 243  # 0.9 of 54 s, 0.2 s each
    costly = Ekya(profiling_iterations=10**6).solve(problem)
    assert costly.profiling_s == 0.0
    assert [a.sparsity for a in costly.assignments] == [0.5, 0.5]


@pytest.mark.parametrize("charged", [True, False])
def test_ekya_pays_for_the_one_level_that_fits(make_application, charged):
    problem = Problem((make_application(), make_application(name="b")), 12.0, 4e9)
    plan = Ekya(profiling_iterations=10, charge_fallback=charged).solve(problem)
    assert plan.profiling_s == pytest.approx(10 * 2 * 0.1)  # both levels of both: 6 of at most 3 s
    assert [a.sparsity for a in plan.assignments] == [0.5, 0.5]
    assert plan.fallback == ""


def test_the_default_is_exact_and_genetic_where_that_grows_too_large(random_problem, monkeypatch):
    problem = random_problem(2)
    plan, why = solve_best(problem)
    assert (plan.solver, why) == ("exact", "few enough combinations of levels")
    with pytest.raises(TooLarge, match=r"10 combinations .* take the solver genetic or greedy"):
        Exact(most_values=1).solve(problem)
    monkeypatch.setattr(solvers, "Exact", lambda: Exact(most_values=1))
    plan, why = solve_best(problem)
    assert plan.solver == "genetic"
    assert "more than 1 values; take the solver genetic or greedy" in why


def test_an_unknown_solver_is_named(random_problem):
    with pytest.raises(BenchError, match="unknown solver 'exakt': did you mean 'exact'"):
        solve(random_problem(0, 1), "exakt")
