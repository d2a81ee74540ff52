"""Which settings a search ends with: the defaults, unless a trial beats them beyond noise."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.records.record import Record
from bench.tuning.choosing import Trial, choose, score_of

OLD = Path(__file__).parents[1] / "records" / "samples" / "schema-1.json"


def record(protocol: dict[str, Any]) -> Record:
    old = json.loads(OLD.read_text())
    old["cell"]["protocol"].update(protocol)
    return Record.model_validate(old)


def test_the_best_trial_is_taken_where_its_gain_is_beyond_its_standard_error() -> None:
    default = Trial({}, (0.50, 0.60, 0.70))
    better = Trial({"a": 1}, (0.52, 0.63, 0.71))  # + 2, 3, 1: mean 2, standard error 0.577
    chosen = choose([default, better], 3)
    assert chosen is not None
    assert chosen.taken is better
    assert chosen.gain == pytest.approx(0.02)
    assert chosen.standard_error == pytest.approx(0.01 / math.sqrt(3))


def test_the_defaults_stay_where_one_run_makes_the_gain() -> None:
    default = Trial({}, (0.50, 0.60, 0.70))
    lucky = Trial({"a": 1}, (0.62, 0.59, 0.69))  # + 12, -1, -1: mean 3.3, standard error 4.3
    chosen = choose([default, lucky], 3)
    assert chosen is not None
    assert (chosen.taken, chosen.best) == (default, lucky)
    assert chosen.gain is not None
    assert chosen.standard_error is not None
    assert 0 < chosen.gain < chosen.standard_error


def test_trials_without_all_runs_are_not_chosen() -> None:
    default, stopped = Trial({}, (0.5, 0.5)), Trial({"a": 1}, (0.9,))
    failed, whole = Trial({"a": 2}, ()), Trial({"a": 3}, (0.4, 0.4))
    chosen = choose([default, stopped, failed, whole], 2)
    assert chosen is not None
    assert chosen.taken is chosen.best is default
    assert choose([stopped, failed], 2) is None


def test_without_a_score_of_the_defaults_the_best_trial_is_taken() -> None:
    failed, worse, best = Trial({}, ()), Trial({"a": 1}, (0.1, 0.2)), Trial({"a": 2}, (0.2, 0.3))
    chosen = choose([failed, worse, best], 2)
    assert chosen is not None
    assert chosen.taken is best
    assert (chosen.default, chosen.gain, chosen.standard_error) == (None, None, None)


scores = st.floats(0, 1, allow_nan=False)


@given(pairs=st.lists(st.tuples(scores, scores), min_size=2, max_size=6))
def test_the_standard_error_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    default = Trial({}, tuple(d for d, _ in pairs))
    other = Trial({"a": 1}, tuple(o for _, o in pairs))
    chosen = choose([default, other], len(pairs))
    assert chosen is not None
    if chosen.best is other:
        gains = [o - d for d, o in pairs]
        assert chosen.standard_error == pytest.approx(float(stats.sem(gains)), abs=1e-9)
        assert (chosen.taken is other) == (sum(gains) / len(gains) > chosen.standard_error)
    else:
        assert default.mean >= other.mean


def test_what_is_kept_at_the_end_counts_where_nothing_resets() -> None:
    kept = record({"reset": "never"})
    results = kept.results
    assert results is not None
    after, final = results.mean("after"), results.mean("final")
    assert after != final
    assert score_of(kept) == pytest.approx((after + final) / 2)
    assert score_of(record({"reset": "domain"})) == pytest.approx(after)


def test_a_run_without_results_has_no_score() -> None:
    old = json.loads(OLD.read_text())
    failed = {**old, "status": "failed", "results": None, "reason": "none"}
    assert math.isnan(score_of(Record.model_validate(failed)))
