"""One folder of images and a table of their classes and domains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydantic
import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.run.validity import build_stream

from .conftest import save_image

Build = Callable[..., DataSet]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """24 images of two domains and classes 2 and 10, and metadata.csv."""
    lines = ["file,label,domain,other"]
    for i in range(24):
        save_image(tmp_path / "images" / f"{i}.png", (10 * i, 0, 0))
        lines.append(f"images/{i}.png,{(2, 10)[i % 2]},{('day', 'night')[i // 12]},x{i % 2}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    return tmp_path


def test_a_table_names_classes_and_domains(table: Path, data_set: Build) -> None:
    data = data_set("image-table", table, size=[8, 9])
    assert list(data.domains()) == ["day", "night"]
    assert list(data.class_names) == ["2", "10"]  # by their value, not their letters
    split = data.split("night", "all")
    assert split.y.tolist() == [0, 1] * 6
    x = take(split.x, torch.tensor([1]))
    assert x.shape == (1, 3, 8, 9)
    assert x[0, 0, 0, 0] == pytest.approx(130 / 255)
    assert list(data.check()) == []


def test_it_is_a_stream_and_other_columns_can_be_named(table: Path, data_set: Build) -> None:
    stream_class = load("stream", "domain-shift")
    data = {"name": "image-table", "root": str(table), "size": 8}
    built = build_stream(stream_class(stream_class.Config(data=data), 0))
    assert [d.name for d in built.domains] == ["night"]
    other = data_set("image-table", table, label="other", domain="label")
    assert list(other.class_names) == ["x0", "x1"]
    assert sorted(other.domains()) == ["10", "2"]


def test_published_splits_are_kept(table: Path, data_set: Build) -> None:
    file = table / "metadata.csv"
    head, *lines = file.read_text().splitlines()
    split = [f"{line},{'test' if i % 3 == 0 else 'train'}" for i, line in enumerate(lines)]
    file.write_text("\n".join([f"{head},split", *split]))
    data = data_set("image-table", table)
    assert list(data.splits("day")) == ["test", "train"]
    assert len(data.split("day", "test")) == 4


@pytest.mark.parametrize(("learned", "tested"), [("Train", "Test"), ("training", "TESTING")])
def test_splits_are_known_in_any_spelling(
    table: Path, data_set: Build, learned: str, tested: str
) -> None:
    file = table / "metadata.csv"
    head, *lines = file.read_text().splitlines()
    split = [f"{line},{tested if i % 3 == 0 else learned}" for i, line in enumerate(lines)]
    file.write_text("\n".join([f"{head},split", *split]))
    data = data_set("image-table", table)
    assert list(data.splits("day")) == ["test", "train"]
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "image-table", "root": str(table), "size": 8}
    (night,) = build_stream(stream_class(stream_class.Config(data=chosen), 0)).domains
    assert night.test.x.sample_names() == data.split("night", "test").x.sample_names()
    file.write_text(file.read_text().replace(tested, "2", 1))
    with pytest.raises(BenchError, match=r"csv:2: split '2' is none of train, validation \(val"):
        data_set("image-table", table).domains()


def test_one_number_in_two_spellings_is_refused(table: Path, data_set: Build) -> None:
    file = table / "metadata.csv"
    file.write_text(file.read_text().replace("images/3.png,10,", "images/3.png,010,"))
    with pytest.raises(BenchError, match="labels '010' and '10' are one number: write it one way"):
        _ = data_set("image-table", table).class_names
    given = data_set("image-table", table, classes=["2", "10", "010"])
    assert given.split("day", "all").y.tolist() == [0, 1, 0, 2] + [0, 1] * 4
    with pytest.raises(pydantic.ValidationError, match="'2' is there twice: name every class once"):
        data_set("image-table", table, classes=["2", "10", "2"])


def test_the_digest_is_of_the_images_and_the_table(table: Path, data_set: Build) -> None:
    first = data_set("image-table", table).digest()
    (table / "unused.txt").write_text("no part of it")
    assert data_set("image-table", table).digest() == first
    save_image(table / "images" / "3.png", 9)
    assert data_set("image-table", table).digest() != first


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("images/3.png", "images/33.png", "metadata.csv:5: file 'images/33.png' is not in"),
        ("images/3.png", "../x.png", "metadata.csv:5: file '../x.png': give its path from"),
        ("file,label", "file,klass", "has no column 'label'"),
        ("images/3.png,10,day", "images/3.png,,day", "metadata.csv:5: column 'label' is ''"),
    ],
)
def test_wrong_rows_are_named(table: Path, data_set: Build, old: str, new: str, said: str) -> None:
    file = table / "metadata.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    problems = list(data_set("image-table", table).check())
    assert len(problems) == 1
    assert said in problems[0]


def test_a_root_without_one_table_is_refused(table: Path, data_set: Build) -> None:
    (table / "more.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BenchError, match=r"has metadata.csv, more.csv, and this layout is"):
        data_set("image-table", table)
    assert data_set("image-table", table, table="metadata.csv").domains()
    with pytest.raises(BenchError, match=r"meta.csv: is not there: name the table"):
        data_set("image-table", table, table="meta.csv")
    labels = data_set("image-table", table, table="metadata.csv", classes=["2", "3"])
    assert "label '10' is none of the classes 2, 3" in next(iter(labels.check()))
