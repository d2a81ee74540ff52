"""Streams in which new classes come: which classes are where, under which shift."""

from __future__ import annotations

from functools import cache
from typing import Any

import pydantic
import pytest
import torch

from bench.contracts.stream import Domain, Split, Stream
from bench.datasets.corruptions import SEVERITIES, VALIDATION_SEVERITIES
from bench.datasets.streams.digits_shift import DigitsShift, DigitsShiftConfig
from bench.datasets.streams.digits_tasks import (
    MIXED_SHIFTS,
    DigitsMixed,
    DigitsMixedConfig,
    DigitsTasks,
    DigitsTasksConfig,
)
from bench.errors import BenchError


@cache
def tasks(**settings: Any) -> DigitsTasks:
    return DigitsTasks(DigitsTasksConfig(**settings), 0)


@cache
def mixed(**settings: Any) -> DigitsMixed:
    return DigitsMixed(DigitsMixedConfig(**settings), 0)


def classes(domain: Domain) -> set[int]:
    """The classes of a domain, the same in both of its splits."""
    adapted, tested = set(domain.adaptation.y.tolist()), set(domain.test.y.tolist())
    assert adapted == tested
    return adapted


def contents(stream: Stream) -> dict[str, set[int]]:
    names = ["source", *stream.domain_names()]
    made = [stream.source(), *map(stream.domain, stream.domain_names())]
    assert [domain.name for domain in made] == names
    return {domain.name: classes(domain) for domain in made}


def test_tasks_bring_two_new_classes_each() -> None:
    assert contents(tasks()) == {
        "source": {0, 1, 2, 3},
        "classes-4-5": {4, 5},
        "classes-6-7": {6, 7},
        "classes-8-9": {8, 9},
    }
    assert list(contents(tasks())) == ["source", *tasks().domain_names()]


def test_a_mixed_stream_shifts_what_is_known_then_brings_new_classes_under_a_shift() -> None:
    assert list(contents(mixed()).items()) == [
        ("source", {0, 1, 2, 3}),
        ("rotation-1", {0, 1, 2, 3}),
        ("classes-4-5-contrast-1", {4, 5}),
        ("blur-1", {0, 1, 2, 3, 4, 5}),
        ("classes-6-7-noise-1", {6, 7}),
        ("shear-1", {0, 1, 2, 3, 4, 5, 6, 7}),
        ("classes-8-9-brightness-1", {8, 9}),
    ]


def test_validation_is_as_long_as_the_test_stream_and_has_no_class_of_it() -> None:
    """Tasks of as many classes, after a source of as many: 4 to 7 are 0 to 3 turned."""
    assert list(contents(tasks(part="validation")).items()) == [
        ("source", {0, 1}),
        ("classes-2-3", {2, 3}),
        ("classes-4-5", {4, 5}),
        ("classes-6-7", {6, 7}),
    ]
    assert list(contents(mixed(part="validation", severity=2)).items()) == [
        ("source", {0, 1}),
        ("perspective-2", {0, 1}),
        ("classes-2-3-gamma-2", {2, 3}),
        ("pixelate-2", {0, 1, 2, 3}),
        ("classes-4-5-speckle-2", {4, 5}),
        ("dilation-2", {0, 1, 2, 3, 4, 5}),
        ("classes-6-7-illumination-2", {6, 7}),
    ]


def test_the_later_validation_classes_are_the_sources_digits_turned() -> None:
    """The images of 6 and 7 are those of 2 and 3 by a quarter turn: no 4 to 9 is among them."""
    made = tasks(part="validation")
    upright, turned = made.domain("classes-2-3"), made.domain("classes-6-7")
    for split in ("adaptation", "test"):
        before, after = getattr(upright, split), getattr(turned, split)
        assert torch.equal(after.y, before.y + 4)
        assert torch.equal(after.x, torch.rot90(before.x, dims=(-2, -1)))
        assert not torch.equal(after.x, before.x)


@pytest.mark.parametrize("source_classes", range(4, 10))
@pytest.mark.parametrize("per_task", range(1, 7))
def test_all_settings_give_every_class_once_and_no_shift_twice(
    source_classes: int, per_task: int
) -> None:
    settings = {"source_classes": source_classes, "per_task": per_task}
    made, other = tasks(**settings), mixed(**settings)
    groups = [
        list(map(int, name.removeprefix("classes-").split("-"))) for name in made.domain_names()
    ]
    source = made.source_settings()["source_classes"]
    assert source == list(range(source_classes))
    assert sum(groups, source) == list(range(10))
    assert [len(group) for group in groups[:-1]] == [per_task] * (len(groups) - 1)
    assert 1 <= len(groups[-1]) <= per_task
    order = MIXED_SHIFTS["test"]
    expected: list[str] = []
    for i, name in enumerate(made.domain_names()):
        expected += [f"{order[2 * i]}-1", f"{name}-{order[2 * i + 1]}-1"]
    assert other.domain_names() == expected


@pytest.mark.parametrize(
    ("source_classes", "per_task", "known", "new"),
    [
        (4, 1, "0-1-2", ["3", "4", "5"]),
        (4, 6, "0-1", ["2-3-4-5-6-7"]),
        (5, 2, "0-1-2", ["3-4", "5-6", "7-8"]),
        (9, 6, "0-1-2", ["3-4-5-6-7-8", "9"]),
    ],
)
def test_validation_tasks_have_as_many_classes_and_leave_two_to_the_source(
    source_classes: int, per_task: int, known: str, new: list[str]
) -> None:
    settings = {"source_classes": source_classes, "per_task": per_task, "part": "validation"}
    made = tasks(**settings)
    assert made.source_settings()["source_classes"] == list(map(int, known.split("-")))
    assert made.domain_names() == [f"classes-{group}" for group in new]
    shifts = MIXED_SHIFTS["validation"]
    expected: list[str] = []
    for i, group in enumerate(new):
        expected += [f"{shifts[2 * i]}-1", f"classes-{group}-{shifts[2 * i + 1]}-1"]
    assert mixed(**settings).domain_names() == expected


def test_a_mixed_stream_takes_shifts_of_its_part() -> None:
    assert sorted(MIXED_SHIFTS["test"]) == sorted(SEVERITIES)
    assert sorted(MIXED_SHIFTS["validation"]) == sorted(VALIDATION_SEVERITIES)


def test_the_images_are_those_of_the_shift_stream_with_the_domains_classes() -> None:
    """Same splits: the tasks' images are the shift stream's clean ones, restricted."""
    whole = DigitsShift(DigitsShiftConfig(shifts=("brightness",)), 0).domain("brightness-1")
    clean = {name: tasks().domain(name) for name in tasks().domain_names()}
    bright = mixed().domain("classes-8-9-brightness-1")
    for split in ("adaptation", "test"):
        every: Split = getattr(whole, split)
        for name, domain in clean.items():
            wanted = torch.tensor([str(label) in name for label in every.y.tolist()])
            part: Split = getattr(domain, split)
            assert torch.equal((part.x + 0.12).clamp(max=1.0), every.x[wanted])
            assert torch.equal(part.y, every.y[wanted])
        wanted = every.y >= 8
        assert torch.equal(getattr(bright, split).x, every.x[wanted])
        assert torch.equal(getattr(bright, split).y, every.y[wanted])


def test_the_sizes_are_the_classes_shares_of_1000_497_and_300() -> None:
    parts = [tasks().source(), *map(tasks().domain, tasks().domain_names())]
    assert [len(p.adaptation) for p in parts] == [400, 101, 99, 98]
    assert [len(p.test) for p in parts] == [121, 60, 60, 59]
    assert len(mixed().domain("shear-1").adaptation) == 399
    assert len(mixed().domain("shear-1").test) == 241


@pytest.mark.parametrize("part", ["test", "validation"])
def test_severity_2_is_farther_from_the_clean_images_than_severity_1(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mild, strong = mixed(part=part), mixed(part=part, severity=2)
    pairs = list(zip(mild.domain_names(), strong.domain_names(), strict=True))
    shifted = [(mild.domain(a).test.x, strong.domain(b).test.x) for a, b in pairs]
    monkeypatch.setattr("bench.datasets.digits.apply_shift", lambda name, images, *_: images)
    for (a, b), (near, far) in zip(pairs, shifted, strict=True):
        assert a.removesuffix("-1") == b.removesuffix("-2")
        clean = mild.domain(a).test.x
        distance = float((near - clean).square().mean())
        assert float((far - clean).square().mean()) > 1.2 * distance > 0


def test_the_declarations_say_what_changes_along_the_stream() -> None:
    assert (DigitsTasks.supervised, DigitsTasks.shifts) == (True, ("class",))
    assert (DigitsMixed.supervised, DigitsMixed.shifts) == (True, ("domain", "class"))
    assert tasks().classes == mixed().classes == 10


def test_source_models_are_shared_where_the_sources_are_equal_and_only_there() -> None:
    assert tasks().source_settings() == mixed(severity=2).source_settings()
    assert tasks().source_settings() == tasks(per_task=3).source_settings()
    assert tasks().source_settings() != tasks(source_classes=5).source_settings()


def test_validation_keeps_the_severity_and_the_tasks_settings() -> None:
    given = DigitsMixedConfig(severity=2, source_classes=6, per_task=4)
    made = DigitsMixed.validation(given)
    assert made == DigitsMixedConfig(severity=2, source_classes=6, per_task=4, part="validation")


@pytest.mark.parametrize("name", ["classes-4", "rotation-1", ""])
def test_a_domain_that_is_not_in_the_stream_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BenchError, match=f"DigitsTasks has no domain '{name}'; .*classes-4-5"):
        tasks().domain(name)


@pytest.mark.parametrize(
    "bad",
    [
        {"source_classes": 3}, {"source_classes": 10}, {"per_task": 0}, {"per_task": 7},
        {"part": "training"}, {"severity": 3}, {"shifts": ("blur",)}, {"size": 8},
    ],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        mixed(**bad)
