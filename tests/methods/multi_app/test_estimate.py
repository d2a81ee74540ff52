"""What is expected of an application, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.methods.edgeta.offline import offline
from bench.methods.multi_app.estimate import Calibration, updated_half
from bench.methods.multi_app.method import MultiApp, MultiAppConfig


def test_an_estimate_is_confidence_times_the_ratio_on_the_source() -> None:
    known = Calibration((0.0, 0.5), (0.9, 0.6), (0.8, 0.75))
    assert known.estimate(0.4, 0.0) == pytest.approx(0.45)
    assert known.estimate(0.5, 0.5) == pytest.approx(0.4)
    assert known.estimate(1.0, 0.0) == 1.0  # 1.125 is no accuracy
    assert known.ceiling(0.5) == 0.6


def test_calibration_is_on_what_the_offline_stage_held_out(
    prepared: Callable[..., MultiApp],
) -> None:
    """The accuracies are then those of the offline stage's own validation."""
    method = prepared(levels=4)
    fresh = prepared(levels=4)
    made = offline(fresh.config, _model(fresh), fresh.source)
    known = method.groups[0].calibration
    assert dict(zip(known.sparsities, known.accuracy, strict=True)) == pytest.approx(made.accuracy)
    assert all(0 < c <= 1 for c in known.confidence)


def _model(method: MultiApp):  # the model that `prepared` builds
    from bench.models.digits_vit import DigitsAppsViT, DigitsViTConfig

    torch.manual_seed(0)
    return DigitsAppsViT.build(DigitsViTConfig(width=16, depth=1, patch=4, heads=4), (1, 8, 8), 3)


def test_the_half_way_is_the_geometric_mean_of_what_was_thought_and_what_was_seen() -> None:
    # From 0.5 towards 0.9, 20 iterations brought half of the way: 20 seen, 80 thought.
    assert updated_half(80.0, 0.5, 0.7, 0.9, 20) == pytest.approx(40.0)
    # Nothing gained counts as a twentieth: 20 * 19; all gained as 19 twentieths: 20 / 19.
    assert updated_half(80.0, 0.5, 0.4, 0.9, 20) == pytest.approx((80 * 380) ** 0.5)
    assert updated_half(80.0, 0.5, 0.95, 0.9, 20) == pytest.approx((80 * 20 / 19) ** 0.5)
    # Nothing to gain, or nothing done, says nothing.
    assert updated_half(80.0, 0.89, 0.9, 0.9, 20) == 80.0
    assert updated_half(80.0, 0.5, 0.7, 0.9, 0) == 80.0


@given(
    half=st.floats(1, 1000), start=st.floats(0, 1), after=st.floats(0, 1),
    ceiling=st.floats(0, 1), iterations=st.integers(0, 10**6),
)  # fmt: skip
def test_the_half_way_stays_in_its_bounds(
    half: float, start: float, after: float, ceiling: float, iterations: int
) -> None:
    assert 1 <= updated_half(half, start, after, ceiling, iterations) <= 1000


def test_the_grid_rises_evenly_and_names_each_sparsity_once() -> None:
    assert MultiAppConfig().grid() == [0.0, 0.3, 0.6, 0.9]
    assert MultiAppConfig(levels=1).grid() == [0.0]
    assert MultiAppConfig(min_sparsity=0.5, max_sparsity=0.5).grid() == [0.5]
