from __future__ import annotations

import itertools
import math

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.reports.paired import (
    compare_pairs,
    geometric_mean,
    hedges_g,
    holm,
    paired,
    ratio,
    wilcoxon_p,
)
from bench.reports.statistics import Run

DIFFERENCES = [0.02, 0.05, -0.01, 0.03, 0.04, 0.06, 0.01, 0.08]
p_values = st.lists(st.floats(0, 1), max_size=12)


def test_hedges_g_is_d_times_its_correction() -> None:
    # Mean .035, s = .0287849, d_z = 1.215917; J(7) = gamma(3.5) / (sqrt(3.5) gamma(3)).
    j = math.gamma(3.5) / (math.sqrt(3.5) * math.gamma(3))
    spread = (sum((d - 0.035) ** 2 for d in DIFFERENCES) / 7) ** 0.5
    assert hedges_g(DIFFERENCES) == pytest.approx(0.035 / spread * j, abs=1e-9)
    assert j == pytest.approx(1 - 3 / (4 * 7 - 1), abs=2e-3)


def test_no_effect_size_of_two_pairs_or_of_equal_ones() -> None:
    assert hedges_g([0.1, 0.2]) is None
    assert hedges_g([0.1, 0.1, 0.1, 0.1 + 1e-17]) is None


def test_wilcoxon_equals_scipy_where_nothing_is_tied() -> None:
    tied = [0.02, 0.05, -0.011, 0.03, 0.04, 0.06, 0.01, 0.08]
    assert wilcoxon_p(tied) == pytest.approx(
        scipy.stats.wilcoxon(tied, method="exact").pvalue, abs=1e-9
    )


def test_wilcoxon_counts_all_signs_where_differences_are_tied() -> None:
    ranks = scipy.stats.rankdata([abs(d) for d in DIFFERENCES])
    observed = sum(r for r, d in zip(ranks, DIFFERENCES, strict=True) if d > 0)
    sums = [
        sum(r for r, up in zip(ranks, signs, strict=True) if up)
        for signs in itertools.product((False, True), repeat=8)
    ]
    upper = sum(s >= observed - 1e-9 for s in sums) / len(sums)
    assert wilcoxon_p(DIFFERENCES) == pytest.approx(2 * upper, abs=1e-9)


@pytest.mark.parametrize("known", [[0.1] * 5, [0.1] * 5 + [0.0] * 4, []])
def test_fewer_than_six_pairs_that_differ_are_not_tested(known: list[float]) -> None:
    assert wilcoxon_p(known) is None


def test_six_equal_signs_are_the_least_that_is_significant() -> None:
    assert wilcoxon_p([0.01, 0.02, 0.03, 0.04, 0.05, 0.06]) == pytest.approx(2 / 2**6)


def test_holm_by_hand() -> None:
    # .01 * 4, .02 * 3, .03 * 2, and .04, which may not be below the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])


@settings(deadline=None)  # the first call imports
@given(p_values)
def test_holm_equals_statsmodels(known: list[float]) -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    expected = multipletests(known, method="holm")[1] if known else []
    assert holm(known) == pytest.approx(list(expected), abs=1e-12)


@given(p_values)
def test_holm_raises_p_keeps_order_and_stays_at_most_1(known: list[float]) -> None:
    made = holm(known)
    assert all(p <= q <= 1 for p, q in zip(known, made, strict=True))
    ordered = [q for _, q in sorted(zip(known, made, strict=True))]
    assert ordered == sorted(ordered)


def test_pairs_are_runs_of_both() -> None:
    a = {Run(0, s): 0.5 + 0.1 * s for s in range(4)}
    b = {Run(0, s): 0.4 for s in range(1, 6)}
    found = paired(a, b)
    assert found is not None
    assert found.difference.n == 3
    assert found.difference.mean == pytest.approx(0.3)
    assert found.p is None
    assert paired(a, {Run(1, 0): 0.4}) is None


@settings(deadline=None)  # the first call imports
@given(st.lists(st.floats(-1, 1, width=16), min_size=1, max_size=9))
def test_the_other_way_round_only_signs_change(known: list[float]) -> None:
    forth, back = compare_pairs(known), compare_pairs([-d for d in known])
    assert forth.difference.mean == -back.difference.mean
    assert (forth.effect is None) == (back.effect is None)
    assert forth.effect is None or forth.effect == pytest.approx(-(back.effect or 0))
    assert forth.p == pytest.approx(back.p) if forth.p is not None else back.p is None


def test_a_geometric_mean_of_ratios_and_its_interval() -> None:
    made = geometric_mean([0.5, 2.0, 1.0])
    assert made is not None
    assert made.mean == pytest.approx(1.0)
    # Logarithms -.693147, .693147, 0: s = .693147; t(0.975, 2) = 4.302653.
    half = 4.302653 * 0.693147 / 3**0.5
    assert made.interval == pytest.approx((math.exp(-half), math.exp(half)), rel=1e-5)
    assert geometric_mean([]) is None


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=9))
def test_a_ratio_turned_round_is_its_inverse(values: list[float]) -> None:
    made, back = geometric_mean(values), geometric_mean([1 / v for v in values])
    assert made is not None
    assert back is not None
    assert made.mean == pytest.approx(1 / back.mean)
    assert made.interval == pytest.approx([1 / e for e in reversed(back.interval or ())])
    assert made.mean == pytest.approx(float(scipy.stats.gmean(values)))


def test_ratios_are_paired_and_leave_out_what_costs_nothing() -> None:
    a = {Run(0, 0): 2.0, Run(0, 1): 8.0, Run(0, 2): 0.0, Run(0, 3): 5.0}
    b = {Run(0, 0): 1.0, Run(0, 1): 2.0, Run(0, 2): 3.0}
    made = ratio(a, b)
    assert made is not None
    assert made.n == 2
    assert made.mean == pytest.approx(math.sqrt(2.0 * 4.0))
