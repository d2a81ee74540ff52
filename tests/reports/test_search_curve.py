"""The expected best of k trials."""

from __future__ import annotations

from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.reports.search_curve import expected_best


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=7))
def test_it_is_the_mean_over_all_choices_of_k_trials(scores: list[float | None]) -> None:
    known = [0.0 if score is None else score for score in scores]
    for k, value in enumerate(expected_best(scores), start=1):
        assert value == pytest.approx(fmean(map(max, combinations(known, k))), abs=1e-9)


def test_the_figure_is_the_same_each_time_and_leaves_out_methods_without_trials() -> None:
    draw = registry.load("report", "expected-best")
    searches = {"tent": [0.5, 0.6, None, 0.4], "shot": [0.7, 0.72], "none": []}
    first = draw(searches, "mine")
    assert first.startswith(b"\x89PNG")
    assert draw(searches, "mine") == first
    assert draw({"tent": [0.5]}, "mine") != first
