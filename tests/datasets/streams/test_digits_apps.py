"""The passed of several applications: whose images, under which shifts, in which order."""

from __future__ import annotations

from functools import cache
from typing import Any

import pydantic
import pytest
import torch

from bench.datasets.corruptions import SEVERITIES, VALIDATION_SEVERITIES
from bench.datasets.streams.digits_apps import DigitsApps, DigitsAppsConfig
from bench.datasets.streams.digits_shift import DigitsShift, DigitsShiftConfig
from bench.errors import BenchError
from bench.models.digits_vit import DigitsAppsViT, DigitsViTConfig


@cache
def apps(seed: int = 0, **settings: Any) -> DigitsApps:
    return DigitsApps(DigitsAppsConfig(size=16, **settings), seed)


def names(stream: DigitsApps) -> list[list[str]]:
    return [[step.name.split("-", 1)[1] for step in passed] for passed in stream.streams]


def test_a_window_holds_equally_many_samples_of_every_application() -> None:
    domain = apps().domain("window-1")
    for split, each in ((domain.adaptation, 497), (domain.test, 300)):
        assert split.x["app"].tolist() == [0] * each + [1] * each + [2] * each
        assert split.x["image"].shape == (3 * each, 1, 16, 16)
        parts = split.y.split(each)
        assert all(torch.equal(part, parts[0]) for part in parts)


def test_every_application_has_its_own_order_of_distinct_domains() -> None:
    streams = names(apps())
    assert [len(set(passed)) for passed in streams] == [8, 8, 8]
    assert len({tuple(passed) for passed in streams}) == 3
    assert all(name.rpartition("-")[0] in SEVERITIES for passed in streams for name in passed)
    assert names(apps()) == streams
    assert names(apps(seed=1)) != streams
    assert apps().domain_names() == [f"window-{w}" for w in range(1, 9)]


def test_what_any_application_adapts_on_none_is_tested_on() -> None:
    """Splits are those of digits-shift, application by application."""
    stream = apps()
    plain = DigitsShift(DigitsShiftConfig(size=16), 0)
    for split in ("adaptation", "test"):
        clean = plain._split(split, tuple(range(10)))
        for number in range(3):
            step = stream.streams[number][0]
            joined = getattr(stream.domain("window-1"), split)
            own = joined.x["image"][joined.x["app"] == number]
            assert torch.equal(own, stream._shifted(step, split).x)
            assert torch.equal(joined.y[joined.x["app"] == number], clean.y)


def test_domains_are_built_again_as_they_were() -> None:
    one, two = (DigitsApps(DigitsAppsConfig(size=16), 3).domain("window-4") for _ in range(2))
    assert torch.equal(one.test.x["image"], two.test.x["image"])
    assert torch.equal(one.adaptation.x["image"], two.adaptation.x["image"])


def test_in_the_source_applications_take_turns_and_images_are_the_same_for_all_seeds() -> None:
    one, two = apps().source(), apps(seed=1).source()
    assert one.adaptation.x["app"][:5].tolist() == [0, 1, 2, 0, 1]
    assert torch.equal(one.adaptation.x["image"], two.adaptation.x["image"])
    assert len(one.adaptation) == 1000
    assert apps().source_settings() == apps(seed=1, windows=2).source_settings()
    assert apps(applications=2).source_settings() != apps().source_settings()


def test_validation_has_other_shifts_and_as_many_applications() -> None:
    config = DigitsApps.validation(DigitsAppsConfig(size=16, windows=24))
    stream = DigitsApps(DigitsAppsConfig.model_validate(config.model_dump()), 0)
    kinds = {name.rpartition("-")[0] for passed in names(stream) for name in passed}
    assert kinds == set(VALIDATION_SEVERITIES)
    assert [len(passed) for passed in stream.streams] == [12, 12, 12]


@pytest.mark.parametrize(
    "bad",
    [
        {"applications": 1}, {"applications": 9}, {"windows": 0}, {"windows": 25},
        {"windows": 13, "severities": [1]}, {"severities": [1, 1]}, {"severities": []},
        {"severities": [3]}, {"part": "validation", "windows": 13},
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        DigitsAppsConfig.model_validate(bad)


def test_an_unknown_window_is_named() -> None:
    with pytest.raises(BenchError, match=r"no domain 'window-0'; did you mean 'window-"):
        apps().domain("window-0")


def test_the_model_reads_the_images_alone() -> None:
    torch.manual_seed(0)
    model = DigitsAppsViT.build(DigitsViTConfig(width=16, depth=1, patch=8), (1, 16, 16), 10)
    model.train(False)
    x = {"app": torch.tensor([0, 1, 2]), "image": torch.rand(3, 1, 16, 16)}
    assert torch.equal(model(x), model(x["image"]))
    moved = model.augment(x)
    assert torch.equal(moved["app"], x["app"])
    assert sorted(moved["image"].flatten().tolist()) == sorted(x["image"].flatten().tolist())
