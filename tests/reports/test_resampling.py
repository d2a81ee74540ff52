from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.reports.resampling import (
    front_shares,
    interquartile_mean,
    percentile_interval,
    profile,
    stratified,
)

SCORES = np.array(
    [[0.61, 0.42, 0.80], [0.65, 0.40, 0.85], [0.58, 0.55, 0.79], [0.70, 0.47, 0.90],
     [0.63, 0.44, 0.88]]
)  # fmt: skip
STRATA = SCORES.T.tolist()
"""By scenario five runs. What rliable 1.2.0 says of them, which needs pandas below 3 and so cannot
be imported beside ours, stands in the tests."""

values = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12)


def test_interquartile_mean_equals_rliable() -> None:
    assert interquartile_mean(SCORES.ravel()) == pytest.approx(0.6422222222222222, abs=1e-12)


@given(values)
def test_interquartile_mean_is_scipys_trimmed_mean(known: list[float]) -> None:
    expected = scipy.stats.trim_mean(known, 0.25)
    assert interquartile_mean(np.array(known)) == pytest.approx(expected, abs=1e-9)


def test_its_stratified_bootstrap_equals_rliables() -> None:
    # rliable with 50,000 draws: [0.61666667, 0.67111111].
    low, high = percentile_interval(interquartile_mean(stratified(STRATA, 50_000)))
    assert (low, high) == pytest.approx((0.61666667, 0.67111111), abs=0.0015)


@given(st.lists(values, min_size=1, max_size=4))
def test_bootstrap_draws_come_from_their_own_stratum(strata: list[list[float]]) -> None:
    drawn, at = stratified(strata, 20), 0
    for stratum in strata:
        assert set(drawn[:, at : at + len(stratum)].ravel()) <= set(stratum)
        at += len(stratum)
    low, high = percentile_interval(interquartile_mean(drawn))
    assert 0 <= low <= high <= 1


def test_the_same_call_gives_the_same_draws() -> None:
    assert (stratified(STRATA) == stratified(STRATA)).all()


def test_profile_equals_rliable() -> None:
    # rliable's is the share of runs above a level.
    above = [0.93333333, 0.73333333, 0.6, 0.33333333, 0.2]
    made = profile(STRATA, [0.4, 0.5, 0.6, 0.7, 0.8])
    assert 1 - made == pytest.approx(np.array(above), abs=1e-8)


def test_every_scenario_counts_alike_in_a_profile() -> None:
    assert profile([[0.1] * 9, [0.9]], [0.5]) == pytest.approx([0.5])


def test_who_is_always_best_is_always_on_the_front() -> None:
    points = {
        "cheap": dict.fromkeys(range(5), (1.0, 0.5)),
        "good": dict.fromkeys(range(5), (5.0, 0.9)),
        "beaten": dict.fromkeys(range(5), (6.0, 0.8)),
        "unsure": {s: (3.0, 0.45 + 0.05 * s) for s in range(5)},
    }
    shares = front_shares(points)
    assert (shares["cheap"], shares["good"], shares["beaten"]) == (1.0, 1.0, 0.0)
    # Its mean of five draws of 0 to 4 is above 1 in all but a few of 3125 cases.
    cases = np.stack(np.meshgrid(*[np.arange(5)] * 5)).reshape(5, -1).mean(axis=0)
    assert shares["unsure"] == pytest.approx((cases > 1).mean(), abs=0.02)


def test_fewer_than_three_common_repeats_tell_no_shares() -> None:
    two = dict.fromkeys(range(2), (1.0, 0.5))
    assert front_shares({"a": two, "b": {0: (1.0, 1.0), 2: (1.0, 1.0)}}) == {}
    assert front_shares({}) == {}
