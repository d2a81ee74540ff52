"""New classes over any data, alone and between shifts; and several applications at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from bench import BenchError, Domain, LazyInputs, load
from bench.contracts.data import take
from bench.run.validity import build_stream

from ..conftest import save_image


def stream(name: str, seed: int = 0, part: str = "test", **settings: Any) -> Any:
    stream_class = load("stream", name)
    config = stream_class.Config(**settings)
    config = config if part == "test" else stream_class.validation(config)
    return stream_class(config, seed)


@pytest.fixture
def shapes(tmp_path: Path) -> dict[str, Any]:
    """Two domains of 6 classes with 10 images each."""
    for d, domain in enumerate(("day", "night")):
        for c in range(6):
            for i in range(10):
                color = (20 * i, 40 * c, 100 * d)
                save_image(tmp_path / domain / f"class{c}" / f"{i}.png", color)
    return {"name": "image-folder", "root": str(tmp_path), "size": 16}


def seen(domain: Domain) -> list[int]:
    assert sorted(domain.test.y.unique().tolist()) == domain.adaptation.y.unique().tolist()
    return domain.test.y.unique().tolist()


def test_classes_come_in_tasks(shapes: dict[str, Any]) -> None:
    built = build_stream(stream("class-incremental", data=shapes))
    assert seen(built.source) == [0, 1, 2]
    assert [(d.name, seen(d)) for d in built.domains] == [
        ("classes-3-4", [3, 4]),
        ("classes-5", [5]),
    ]
    assert [len(d.adaptation) for d in (built.source, *built.domains)] == [21, 14, 7]


def test_classes_are_chosen_by_name_and_tasks_by_the_seed(shapes: dict[str, Any]) -> None:
    chosen = {"source_classes": ["class5", "class0"], "per_task": 1}
    made = stream("class-incremental", data=shapes, **chosen)
    assert seen(made.source()) == [0, 5]
    assert made.domain_names() == ["classes-1", "classes-2", "classes-3", "classes-4"]
    orders = {
        tuple(
            stream(
                "class-incremental", seed, data=shapes, task_order="shuffled", **chosen
            ).domain_names()
        )
        for seed in range(5)
    }
    assert len(orders) > 1


def test_the_validation_stream_has_the_sources_classes_and_samples(shapes: dict[str, Any]) -> None:
    settings = {"data": shapes, "source_classes": 4, "per_task": 1}
    reported = build_stream(stream("class-incremental", **settings))
    tuned = build_stream(stream("class-incremental", part="validation", **settings))
    assert seen(tuned.source) == [0, 1]
    assert [d.name for d in tuned.domains] == ["classes-2", "classes-3"]
    learned = set(reported.source.adaptation.x.sample_names())
    for domain in (tuned.source, *tuned.domains):
        for split in (domain.adaptation, domain.test):
            assert set(split.x.sample_names()) <= learned


def test_shifts_and_classes_come_in_turn(shapes: dict[str, Any]) -> None:
    settings = {"data": shapes, "source_classes": 3, "per_task": 2}
    built = build_stream(stream("mixed", corruptions=["noise-2", "contrast-2"], **settings))
    assert [(d.name, seen(d)) for d in built.domains] == [
        ("noise-2", [0, 1, 2]),
        ("classes-3-4-contrast-2", [3, 4]),
        ("noise-2@2", [0, 1, 2, 3, 4]),
        ("classes-5-contrast-2", [5]),
    ]
    assert seen(built.source) == [0, 1, 2]
    real = build_stream(stream("mixed", targets="night", **settings))
    assert [d.name for d in real.domains][:2] == ["night", "classes-3-4-night"]
    assert take(real.domains[0].test.x, torch.arange(2))[:, 2].mean() == pytest.approx(100 / 255)
    tuned = stream("mixed", part="validation", targets="night", **settings)
    assert {n.split("-")[-2] for n in tuned.domain_names()} <= {
        "perspective", "gamma", "pixelate", "speckle", "dilation", "illumination"
    }  # fmt: skip
    build_stream(tuned)


def test_applications_have_windows_of_their_own(shapes: dict[str, Any]) -> None:
    made = stream(
        "applications", data=shapes, applications=2, corruptions=["noise", "contrast"], windows=4
    )
    built = build_stream(made)
    assert [d.name for d in built.domains] == [f"window-{i}" for i in (1, 2, 3, 4)]
    x = built.domains[0].adaptation.x
    assert isinstance(x, LazyInputs)
    app = x.column("app")
    assert app is not None
    half = len(app) // 2
    assert app.tolist() == [0] * half + [1] * half
    read = take(x, torch.tensor([0, half]))
    assert read["app"].tolist() == [0, 1]
    assert read["image"].shape == (2, 3, 16, 16)
    chosen = x.subset(torch.tensor([half, 0])).column("app")
    assert chosen is not None
    assert chosen.tolist() == [1, 0]
    assert built.source.adaptation.x.column("app").tolist()[:4] == [0, 1, 0, 1]
    orders = {
        tuple(stream("applications", seed, corruptions=["noise", "contrast"])._orders[0])
        for seed in range(5)
    }
    assert len(orders) > 1


def test_applications_draw_their_samples_from_all_classes_of_a_domain(tmp_path: Path) -> None:
    for d, (domain, n) in enumerate((("first", 4), ("large", 30), ("small", 6))):
        for c in range(3):
            for i in range(n):
                save_image(tmp_path / domain / f"class{c}" / f"{i}.png", (8 * i, 40 * c, 100 * d))
    data = {"name": "image-folder", "root": str(tmp_path), "size": 16}
    for window in build_stream(stream("applications", data=data, applications=6)).domains:
        for split in (window.adaptation, window.test):
            app = split.x.column("app")
            assert app is not None
            assert len(split) == 6 * int((app == 0).sum())
        app = window.adaptation.x.column("app")
        classes = [set(window.adaptation.y[app == i].tolist()) for i in range(6)]
        assert classes == [{0, 1, 2}] * 6


@pytest.mark.parametrize("name", ["class-incremental", "mixed"])
def test_what_a_validation_source_is_drawn_from_counts_in_its_identity(
    shapes: dict[str, Any], name: str
) -> None:
    settings = {"data": shapes, "per_task": 3, "source_samples": 8}
    few, more = (stream(name, part="validation", source_classes=n, **settings) for n in (3, 4))
    assert few.source_classes == more.source_classes == [0, 1]
    names = [made.source().adaptation.x.sample_names() for made in (few, more)]
    assert names[0] != names[1]
    assert few.source_settings() != more.source_settings()
    reported = stream(name, source_classes=3, **settings).source_settings()
    assert "reported_classes" not in reported  # source models of test streams keep their identity


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("class-incremental", {"source_classes": 6}, "the source has all 6 classes"),
        ("class-incremental", {"source_classes": ["clas5"]}, "no class 'clas5'; did you mean"),
        ("mixed", {"corruptions": ["fogg"]}, "'fogg' is none of this data set's"),
        (
            "applications",
            {"corruptions": ["noise-1"], "windows": 2},
            "windows 2: there are 1 distinct shifts; take fewer windows",
        ),
    ],
)
def test_bad_settings_are_one_line(
    shapes: dict[str, Any], name: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        stream(name, data=shapes, **settings)


def test_labels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "why", "answer": "so"}\n' * 3)
    data = {"name": "question-answer", "root": str(tmp_path)}
    with pytest.raises(BenchError, match="for samples of one class each, and question-answer is"):
        stream("class-incremental", data=data)


def test_few_source_classes_have_no_validation_stream(shapes: dict[str, Any]) -> None:
    with pytest.raises(BenchError, match="give it 3 or more"):
        stream("class-incremental", part="validation", data=shapes, source_classes=2)
