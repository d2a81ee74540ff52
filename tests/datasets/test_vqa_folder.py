"""Questions about images: inputs of two kinds, scores of answers, and wrong rows named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.run.validity import build_stream

from .conftest import save_image

Build = Callable[..., DataSet]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    """A train and a test split of 6 images and 12 questions each; answers yes, no and red."""
    (tmp_path / "answers.txt").write_text("yes\nno\nred\n\n")
    for s, split in enumerate(("train", "test")):
        rows: list[Any] = []
        for i in range(6):
            save_image(tmp_path / split / "images" / f"{i}.png", (40 * i, 100 * s, 9))
            rows += [[f"is it {i}?", "yes", i], ["what color is it?", "red", i]]
        (tmp_path / split / "questions.json").write_text(json.dumps(rows))
    return tmp_path


def test_images_questions_and_answers_are_put_together(questions: Path, data_set: Build) -> None:
    data = data_set("vqa-folder", questions, size=16, tokens=8)
    assert (data.task, data.class_names) == ("visual-question-answering", ("yes", "no", "red"))
    assert (list(data.domains()), list(data.splits("all"))) == (["all"], ["train", "test"])
    split = data.split("all", "train")
    assert split.y.tolist() == [[1, 0, 0], [0, 0, 1]] * 6
    assert split.y.dtype == torch.float32
    x = take(split.x, torch.tensor([5, 4]))
    assert x["image"].shape == (2, 3, 16, 16)
    assert x["image"][:, 0, 3, 3].tolist() == pytest.approx([80 / 255] * 2)
    assert x["attention_mask"].sum(1).tolist() == [6, 5]  # the first, four or three words, a mark
    assert len(set(split.x.sample_names())) == 12


def test_answers_of_several_people_score_by_how_many_agree(
    questions: Path, data_set: Build
) -> None:
    people = ["yes"] * 2 + ["no"] * 4 + ["blue"]
    rows = [{"question": "is it?", "answers": people, "image": "3.png"}]
    (questions / "train" / "questions.json").write_text(json.dumps(rows))
    y = data_set("vqa-folder", questions).split("all", "train").y
    assert y.tolist() == [pytest.approx([2 / 3, 1, 0])]


def test_corruptions_change_images_and_leave_questions(questions: Path, data_set: Build) -> None:
    data = data_set("vqa-folder", questions, size=16)
    clean = data.split("all", "test")
    noisy = data.corrupted(clean, "noise-1", "0/a")
    before, after = (take(each.x, torch.arange(3)) for each in (clean, noisy))
    assert torch.equal(before["input_ids"], after["input_ids"])
    assert not torch.equal(before["image"], after["image"])
    assert noisy.x.sample_names() == clean.x.sample_names()


def test_a_stream_keeps_the_published_splits(questions: Path) -> None:
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "vqa-folder", "root": str(questions), "size": 16}
    stream = stream_class(stream_class.Config(data=chosen, corruptions="noise"), 0)
    built = build_stream(stream)
    assert [d.name for d in built.domains] == ["noise-1", "noise-2"]
    assert {len(d.test) for d in built.domains} == {12}
    assert [len(built.source.adaptation), len(built.domains[0].adaptation)] == [7, 5]


# --- bad input ------------------------------------------------------------------------------


def complaint(data_set: Build, root: Path) -> str:
    try:
        (line,) = list(data_set("vqa-folder", root).check())
    except BenchError as error:
        return str(error)
    return str(line)


def test_good_questions_have_nothing_to_complain_of(questions: Path, data_set: Build) -> None:
    assert list(data_set("vqa-folder", questions).check()) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["is it?", "maybe", 0], "question 0: answer 'maybe' is none of answers.txt: add it there"),
        (["is it?", "yes", 99], "question 0: image 99 is not in "),
        (["is it?", "yes"], "question 0: is ['is it?', 'yes']: give [question, answer, image]"),
        ({"answer": "yes", "image": 0}, "give [question, answer, image]"),
    ],
)
def test_a_wrong_question_is_named(row: Any, said: str, questions: Path, data_set: Build) -> None:
    (questions / "test" / "questions.json").write_text(json.dumps([row]))
    line = complaint(data_set, questions)
    assert line.startswith(f"{questions}/test/questions.json: ")
    assert said in line


def test_missing_parts_are_named(questions: Path, data_set: Build, tmp_path: Path) -> None:
    (questions / "answers.txt").unlink()
    assert complaint(data_set, questions) == (
        f"{questions}/answers.txt: is not there: list the answers, one a line"
    )
    for split in ("train", "test"):
        (questions / split / "questions.json").unlink()
    assert f"root {questions} has no questions.json: this layout" in complaint(data_set, questions)


def test_an_unreadable_image_is_named_once(questions: Path, data_set: Build) -> None:
    (questions / "train" / "images" / "2.png").write_bytes(b"no image")
    assert complaint(data_set, questions).startswith(f"{questions}/train/images/2.png: cannot be")


# --- real data ------------------------------------------------------------------------------


def test_easy_vqa_is_read_as_it_is_published(
    real_data: Callable[[str], Path], data_set: Build
) -> None:
    data = data_set("vqa-folder", real_data("easy_vqa.zip") / "easy_vqa")
    assert len(data.class_names) == 13
    assert [len(data.split("all", s)) for s in data.splits("all")] == [38575, 9673]
