"""The streams of published data sets that the how-to shows: each is built, and that to tune on."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import load
from bench.run.validity import build_stream

PAGE = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "own-data.md"
SHOWN = [yaml.safe_load(line) for line in re.findall(r"^\{name: .*\}$", PAGE.read_text(), re.M)]

ARCHIVES: dict[str, dict[str, tuple[str, ...]]] = {
    # root of the page: {folder in it, or "." for itself: archives and files that lie there}
    "pacs": {".": ("pacs_96px.zip",)},
    "reviews": {
        "hl5": ("product_reviews_1.zip",),
        "ding9": ("product_reviews_2.zip",),
        "liu3": ("liu3_aspect_sentiment.zip",),
    },
    "ewt": {"": ("en_ewt-ud-dev.conllu.gz", "en_ewt-ud-test.conllu.gz")},
    "camvid": {".": ("camvid_240x180.zip",)},
    "easy_vqa": {".": ("easy_vqa.zip",)},
    "coco128": {".": ("coco128_train_320px.zip",)},
    "qa": {".": ("generation_qa.zip",)},
}

EXPECTED = {
    "pacs": ("classification", 7, ["art_painting", "cartoon", "sketch"]),
    "reviews": ("classification", 2, ["ding9", "liu3"]),
    "ewt": ("token-classification", 17, ["answers", "email", "newsgroup", "reviews"]),
    "camvid": ("segmentation", 11, ["0001TP", "0006R0"]),
    "easy_vqa": (
        "visual-question-answering",
        13,
        ["noise-1", "noise-2", "contrast-1", "contrast-2"],
    ),
    "coco128": ("detection", 80, ["noise-1", "noise-2", "contrast-1", "contrast-2"]),
    "qa": ("generation", 2005, ["gsm8k_train_1000"]),
}


@pytest.fixture
def root(real_data: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """The folder that the page calls by a name."""

    def find(name: str) -> Path:
        for folder, files in ARCHIVES[name].items():
            found = [real_data(file) for file in files]
            if folder == ".":
                return found[0] / "easy_vqa" if name == "easy_vqa" else found[0]
            for each in found:
                (tmp_path / (folder or each.name)).symlink_to(each)
        return tmp_path

    return find


def test_the_page_shows_each() -> None:
    assert [each["data"]["root"] for each in SHOWN] == list(EXPECTED)


@pytest.mark.parametrize("shown", SHOWN, ids=lambda each: each["data"]["root"])
def test_a_published_set_is_a_stream(shown: dict[str, Any], root: Callable[[str], Path]) -> None:
    name = shown["data"]["root"]
    settings = {k: v for k, v in shown.items() if k != "name"}
    settings["data"] = {**shown["data"], "root": str(root(name))}
    limits = {"source_samples": 300, "samples": 50, "test_samples": 50}
    stream_class = load("stream", shown["name"])
    config = stream_class.Config(**settings, **limits)
    stream = stream_class(config, 0)
    task, classes, domains = EXPECTED[name]
    assert (stream.task, stream.classes, stream.domain_names()) == (task, classes, domains)
    assert stream_class.task_of(config) == task
    tuned = stream_class(stream_class.validation(config), 0)
    assert not set(tuned.domain_names()) & set(domains)
    for each in (stream, tuned):
        build_stream(each)
