from __future__ import annotations

import math
import random

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from bench import BenchError
from bench.reports.statistics import (
    DIFFERENCE,
    POSITIVE,
    SHARE,
    Estimate,
    Run,
    components,
    estimate,
    mean_ci,
    paired_difference,
    units,
)

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
samples = st.lists(numbers, min_size=2, max_size=12)
by_seed = st.dictionaries(st.builds(Run, st.just(0), st.integers(0, 20)), numbers, max_size=10)
shares = st.lists(st.floats(0, 1, width=32), min_size=2, max_size=12)


def of_seeds(values: dict[int, float]) -> dict[Run, float]:
    return {Run(0, seed): value for seed, value in values.items()}


def close(a: float | None, b: float | None, scale: float = 1.0) -> bool:
    assert a is not None
    assert b is not None
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9 * scale)


def test_known_values() -> None:
    # t(0.975, 4) = 2.776445; s = sqrt(2.5); half width = 2.776445 * sqrt(2.5 / 5)
    estimate = mean_ci([1.0, 2.0, 3.0, 4.0, 5.0])
    assert estimate.mean == 3.0
    assert estimate.half_width == pytest.approx(1.963243, abs=1e-6)
    assert estimate.n == 5


def test_one_value_has_no_interval() -> None:
    assert mean_ci([0.25]) == Estimate(0.25, None, 1)
    assert Estimate(0.25, None, 1).scaled(100) == Estimate(25.0, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf, 1.0]])
def test_nothing_and_the_infinite_have_no_mean(values: list[float]) -> None:
    with pytest.raises(BenchError, match="at least one value, all finite"):
        mean_ci(values)


@given(samples)
def test_agrees_with_scipy(values: list[float]) -> None:
    assume(max(values) - min(values) > 1e-3)
    estimate = mean_ci(values)
    assert estimate.half_width is not None
    low, high = scipy.stats.t.interval(
        0.95, len(values) - 1, loc=estimate.mean, scale=scipy.stats.sem(values)
    )
    scale = max(map(abs, values))
    assert close(estimate.mean - estimate.half_width, float(low), scale)
    assert close(estimate.mean + estimate.half_width, float(high), scale)


@given(samples, st.randoms(use_true_random=False))
def test_order_does_not_matter_to_the_last_bit(values: list[float], chance: random.Random) -> None:
    shuffled = values[:]
    chance.shuffle(shuffled)
    assert mean_ci(shuffled) == mean_ci(values)


@given(samples, numbers)
def test_shift_moves_the_mean_alone(values: list[float], shift: float) -> None:
    a, b = mean_ci(values), mean_ci([v + shift for v in values])
    scale = max(abs(shift), *map(abs, values))
    assert close(b.mean, a.mean + shift, scale)
    assert close(b.half_width, a.half_width, 10 * scale)


@given(samples, st.floats(0.01, 1000))
def test_scale_scales_both(values: list[float], factor: float) -> None:
    a, b = mean_ci(values).scaled(factor), mean_ci([v * factor for v in values])
    scale = factor * max(map(abs, values))
    assert close(b.mean, a.mean, scale)
    assert close(b.half_width, a.half_width, 10 * scale)


@given(numbers, st.integers(2, 9))
def test_equal_values_have_an_interval_of_zero(value: float, n: int) -> None:
    assert mean_ci([value] * n) == Estimate(value, 0.0, n)


@given(samples)
def test_the_interval_shrinks_with_repetition(values: list[float]) -> None:
    assume(max(values) - min(values) > 1e-3)
    once, thrice = mean_ci(values), mean_ci(values * 3)
    assert once.half_width is not None
    assert thrice.half_width is not None
    assert thrice.half_width < once.half_width


@given(by_seed)
def test_paired_difference_of_equals_is_zero(values: dict[int, float]) -> None:
    difference = paired_difference(values, values)
    if not values:
        assert difference is None
    else:
        assert difference == Estimate(
            0.0, None if len(values) == 1 else 0.0, len(values), DIFFERENCE
        )


@given(by_seed, by_seed)
def test_paired_difference_is_antisymmetric_and_over_common_seeds(
    a: dict[int, float], b: dict[int, float]
) -> None:
    forth, back = paired_difference(a, b), paired_difference(b, a)
    common = a.keys() & b.keys()
    if not common:
        assert forth is None
        assert back is None
        return
    assert forth is not None
    assert back is not None
    assert forth.n == len(common)
    assert forth.mean == -back.mean
    assert forth.half_width == back.half_width


def test_pairing_removes_what_seeds_do_to_both() -> None:
    a = of_seeds({0: 0.1, 1: 0.5, 2: 0.9, 7: 0.0})
    b = of_seeds({0: 0.0, 1: 0.4, 2: 0.8, 8: 1.0})
    difference = paired_difference(a, b)
    assert difference is not None
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width == pytest.approx(0.0, abs=1e-12)
    assert difference.n == 3


def test_paired_interval_excludes_zero_where_the_paired_t_test_rejects() -> None:
    a = of_seeds({0: 0.61, 1: 0.64, 2: 0.60, 3: 0.66})
    for offset in (0.0, 0.01, 0.02, 0.04, 0.08):
        b = {r: {0: 0.60, 1: 0.61, 2: 0.61, 3: 0.63}[r.seed] - offset for r in a}
        difference = paired_difference(a, b)
        assert difference is not None
        assert difference.half_width is not None
        p = scipy.stats.ttest_rel(list(a.values()), list(b.values())).pvalue
        assert (abs(difference.mean) > difference.half_width) == (p < 0.05)


# --- ranges ------------------------------------------------------------------------------


def test_an_interval_of_a_share_is_that_of_its_logit() -> None:
    # logit .9 = 2.197225; .05 / (.9 * .1) = .555556; mapped back from 1.641669 and 2.752780.
    interval = Estimate(0.9, 0.05, 3, SHARE).interval
    assert interval == pytest.approx((0.8377619, 0.9400702), abs=1e-6)
    assert Estimate(0.9, 0.05, 3, SHARE).scaled(100).interval == pytest.approx(
        (83.77619, 94.00702), abs=1e-4
    )


def test_an_interval_of_a_cost_is_that_of_its_logarithm() -> None:
    interval = Estimate(2.0, 4.0, 2, POSITIVE).interval
    assert interval == pytest.approx((2 * math.exp(-2), 2 * math.exp(2)))


@given(shares)
def test_an_interval_of_shares_holds_the_mean_and_stays_in_range(values: list[float]) -> None:
    made = mean_ci(values, SHARE)
    assert made.interval is not None
    low, high = made.interval
    assert 0 <= low <= made.mean + 1e-12
    assert made.mean - 1e-12 <= high <= 1


@given(st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=12))
def test_an_interval_of_costs_stays_above_0(values: list[float]) -> None:
    made = mean_ci(values, POSITIVE)
    assert made.interval is not None
    assert 0 <= made.interval[0] <= made.mean + 1e-9
    assert made.mean - 1e-9 <= made.interval[1]


def test_narrow_intervals_are_those_of_student() -> None:
    low, high = Estimate(0.6, 0.001, 5, SHARE).interval or (0, 0)
    assert (low, high) == pytest.approx((0.599, 0.601), abs=2e-6)


def test_a_difference_keeps_students_interval_and_is_cut_at_its_bounds() -> None:
    assert Estimate(0.2, 0.3, 3, DIFFERENCE).interval == pytest.approx((-0.1, 0.5))
    assert Estimate(0.9, 0.3, 3, DIFFERENCE).interval == pytest.approx((0.6, 1.0))


# --- draws of the source model --------------------------------------------------------------

CROSSED = {
    Run(d, s): 0.01 * value
    for d, row in enumerate(
        [[61, 64, 60, 63, 66], [52, 57, 53, 53, 55], [70, 71, 66, 70, 74], [58, 63, 60, 62, 63]]
    )
    for s, value in enumerate(row)
}


def test_three_draws_are_the_unit_and_two_are_not() -> None:
    three = {run: v for run, v in CROSSED.items() if run.draw < 3}
    assert units(three) == pytest.approx({0: 0.628, 1: 0.54, 2: 0.702})
    made = estimate(three, SHARE)
    # t(0.975, 2) = 4.302653; s of .628, .54, .702 = .0810761
    assert made.mean == pytest.approx(0.6233333)
    assert made.half_width == pytest.approx(4.302653 * 0.0811008 / 3**0.5, abs=1e-6)
    assert made.n == 3
    two = {run: v for run, v in CROSSED.items() if run.draw < 2}
    assert units(two) == pytest.approx({0: 0.565, 1: 0.605, 2: 0.565, 3: 0.58, 4: 0.605})
    assert estimate(two).n == 5


def test_pairs_are_of_draws_too() -> None:
    better = {run: v + 0.01 * (run.draw + 1) for run, v in CROSSED.items()}
    difference = paired_difference(better, CROSSED)
    assert difference is not None
    assert difference.n == 4
    assert difference.mean == pytest.approx(0.025)
    # s of .01, .02, .03, .04 is .0129099; t(0.975, 3) = 3.182446
    assert difference.half_width == pytest.approx(3.182446 * 0.0129099 / 2, abs=1e-6)


def test_components_of_variance_equal_those_of_a_mixed_model() -> None:
    frames, mixed = pytest.importorskip("pandas"), pytest.importorskip("statsmodels.api").MixedLM
    made = components(CROSSED)
    frame = frames.DataFrame([{"d": r.draw, "s": r.seed, "y": 100 * v} for r, v in CROSSED.items()])
    model = mixed.from_formula(
        "y ~ 1", frame.assign(all=1), groups="all", vc_formula={"d": "0 + C(d)", "s": "0 + C(s)"}
    )
    fit = model.fit(reml=True)
    of_draws, of_seeds = (float(fit.vcomp[model.exog_vc.names.index(n)]) for n in ("d", "s"))
    assert made.draws == pytest.approx(of_draws**0.5 / 100, rel=2e-3)
    assert made.seeds == pytest.approx((of_seeds + float(fit.scale)) ** 0.5 / 100, rel=2e-3)
    assert (made.n_draws, made.n_seeds) == (4, 5)


def test_components_of_variance_equal_the_analysis_of_variance() -> None:
    pandas = pytest.importorskip("pandas")
    anova = pytest.importorskip("statsmodels.api").stats.anova_lm
    fitted = pytest.importorskip("statsmodels.formula.api").ols
    frame = pandas.DataFrame([{"d": r.draw, "s": r.seed, "y": v} for r, v in CROSSED.items()])
    squares = anova(fitted("y ~ C(d) + C(s)", frame).fit())["mean_sq"]
    rest = squares["Residual"]
    made = components(CROSSED)
    assert made.draws == pytest.approx(((squares["C(d)"] - rest) / 5) ** 0.5, abs=1e-9)
    assert made.seeds == pytest.approx(((squares["C(s)"] - rest) / 4 + rest) ** 0.5, abs=1e-9)


def test_components_need_two_of_each() -> None:
    one = components(of_seeds({0: 0.5, 1: 0.7}))
    assert (one.draws, one.n_draws) == (None, 1)
    assert one.seeds == pytest.approx(0.1414214)
    assert components({Run(0, 0): 0.5, Run(1, 0): 0.6})[:2] == (None, None)
    assert components({Run(0, 0): 0.5})[:2] == (None, None)


@given(st.floats(-1, 1, width=32), st.floats(0.01, 100))
def test_components_ignore_a_shift_and_follow_a_scale(shift: float, factor: float) -> None:
    moved = components({run: factor * (v + shift) for run, v in CROSSED.items()})
    still = components(CROSSED)
    assert moved.draws == pytest.approx(factor * (still.draws or 0), rel=1e-6)
    assert moved.seeds == pytest.approx(factor * (still.seeds or 0), rel=1e-6)
