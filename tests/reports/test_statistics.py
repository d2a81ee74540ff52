from __future__ import annotations

import math
import random

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from bench import BenchError
from bench.reports.statistics import Estimate, mean_ci, paired_difference

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
samples = st.lists(numbers, min_size=2, max_size=12)
by_seed = st.dictionaries(st.integers(0, 20), numbers, max_size=10)


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
        assert difference == Estimate(0.0, None if len(values) == 1 else 0.0, len(values))


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
    a = {0: 0.1, 1: 0.5, 2: 0.9, 7: 0.0}
    b = {0: 0.0, 1: 0.4, 2: 0.8, 8: 1.0}
    difference = paired_difference(a, b)
    assert difference is not None
    assert difference.mean == pytest.approx(0.1)
    assert difference.half_width == pytest.approx(0.0, abs=1e-12)
    assert difference.n == 3


def test_paired_interval_excludes_zero_where_the_paired_t_test_rejects() -> None:
    a = {0: 0.61, 1: 0.64, 2: 0.60, 3: 0.66}
    for offset in (0.0, 0.01, 0.02, 0.04, 0.08):
        b = {0: 0.60 - offset, 1: 0.61 - offset, 2: 0.61 - offset, 3: 0.63 - offset}
        difference = paired_difference(a, b)
        assert difference is not None
        assert difference.half_width is not None
        p = scipy.stats.ttest_rel(list(a.values()), list(b.values())).pvalue
        assert (abs(difference.mean) > difference.half_width) == (p < 0.05)
