"""Folders that the library ``datasets`` saved: images and texts, by split and domain."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bench import BenchError, DataSet, load, take
from bench.datasets import saved_dataset
from bench.run.validity import build_stream

Build = Callable[..., DataSet]

pytestmark = pytest.mark.skipif(
    find_spec("datasets") is None, reason="the library datasets is not installed"
)


def saved(folder: Path, columns: dict[str, Any], **features: Any) -> None:
    from datasets import Dataset

    table = Dataset.from_dict(columns)
    for name, feature in features.items():
        table = table.cast_column(name, feature)
    table.save_to_disk(str(folder))


def pictures(n: int, green: int) -> list[Image.Image]:
    return [Image.new("RGB", (10, 12), (10 * i, green, 0)) for i in range(n)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder for each of two domains, with 12 images of cats and dogs."""
    from datasets import ClassLabel
    from datasets import Image as ImageType

    for d, domain in enumerate(("day", "night")):
        columns = {"image": pictures(12, 100 * d), "label": [i % 2 for i in range(12)]}
        label = ClassLabel(names=["cat", "dog"])
        saved(tmp_path / domain, columns, label=label, image=ImageType())
    return tmp_path


def test_images_of_saved_folders_are_read_when_needed(images: Path, data_set: Build) -> None:
    data = data_set("saved-images", images, size=[8, 9])
    assert list(data.domains()) == ["day", "night"]
    assert list(data.class_names) == ["cat", "dog"]
    split = data.split("night", "all")
    assert split.y.tolist() == [0, 1] * 6
    x = take(split.x, torch.tensor([3, 0]))
    assert x.shape == (2, 3, 8, 9)
    assert x[:, :2, 0, 0].numpy() * 255 == pytest.approx(np.array([[30, 100], [0, 100]]))
    assert list(data.check()) == []
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "saved-images", "root": str(images), "size": 8}
    built = build_stream(stream_class(stream_class.Config(data=chosen), 0))
    assert [d.name for d in built.domains] == ["night"]


def test_splits_and_a_column_of_domains(tmp_path: Path, data_set: Build) -> None:
    from datasets import Dataset, DatasetDict

    rows = {
        "text": [f"text number {i}" for i in range(8)],
        "label": ["bad", "good"] * 4,
        "shop": ["a"] * 4 + ["b"] * 4,
    }
    both = DatasetDict({"train": Dataset.from_dict(rows), "test": Dataset.from_dict(rows)})
    both.save_to_disk(str(tmp_path))
    plain = data_set("saved-texts", tmp_path)
    assert (list(plain.domains()), list(plain.splits("all"))) == (["all"], ["train", "test"])
    data = data_set("saved-texts", tmp_path, domain="shop")
    assert list(data.domains()) == ["a", "b"]
    split = data.split("b", "test")
    assert (len(split), list(data.class_names)) == (4, ["bad", "good"])
    assert data.described(split, 1) == "good: text number 5"


def test_a_wrong_folder_column_or_label_is_one_line(
    images: Path, tmp_path: Path, data_set: Build
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchError, match="this layout is what save_to_disk"):
        data_set("saved-images", tmp_path / "empty")
    with pytest.raises(BenchError, match="has no column 'picture'"):
        data_set("saved-images", images, image="picture").domains()
    assert "and no image: name the images' column" in next(
        iter(data_set("saved-images", images, image="label").check())
    )
    saved(tmp_path / "texts", {"text": ["a", ""], "label": ["x", "y"]})
    (problem,) = data_set("saved-texts", tmp_path / "texts").check()
    assert "split 'all', row 1: column 'text' is ''" in problem


def test_names_of_classes_count_and_not_their_order(images: Path, data_set: Build) -> None:
    from datasets import ClassLabel
    from datasets import Image as ImageType

    def dusk(*names: str) -> DataSet:
        columns = {"image": pictures(4, 50), "label": [0, 0, 0, 1]}
        label = ClassLabel(names=list(names))
        saved(images / "dusk", columns, label=label, image=ImageType())
        return data_set("saved-images", images)

    data = dusk("dog", "cat")
    assert list(data.class_names) == ["cat", "dog"]
    assert data.split("dusk", "all").y.tolist() == [1, 1, 1, 0]
    with pytest.raises(BenchError, match=r"dusk: split 'all': column 'label' has the names .*fox"):
        _ = dusk("dog", "fox").class_names


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1], "labels str in .*a: split 'all', int in .*b: split 'all': save them as one type"),
        ([[0], [1]], "b: split 'all': column 'label' is of type List.*one text or number"),
    ],
)
def test_labels_of_several_types_are_one_line(
    tmp_path: Path, data_set: Build, labels: list[Any], said: str
) -> None:
    saved(tmp_path / "a", {"text": ["one", "two"], "label": ["x", "y"]})
    saved(tmp_path / "b", {"text": ["one", "two"], "label": labels})
    with pytest.raises(BenchError, match=said):
        _ = data_set("saved-texts", tmp_path).class_names


def test_splits_are_known_in_any_spelling_and_others_refused(
    tmp_path: Path, data_set: Build
) -> None:
    from datasets import Dataset, DatasetDict

    table = Dataset.from_dict({"text": ["one", "two"], "label": ["x", "y"]})

    def splits(folder: str, *names: str) -> list[str]:
        DatasetDict(dict.fromkeys(names, table)).save_to_disk(str(tmp_path / folder))
        return list(data_set("saved-texts", tmp_path / folder).splits("all"))

    assert splits("a", "Training", "Test") == ["train", "test"]
    with pytest.raises(BenchError, match="b: split 'holdout' is none of train, validation"):
        splits("b", "train", "holdout")
    with pytest.raises(BenchError, match="domain 'all' has two splits 'train'"):
        splits("c", "train", "Train")


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path, data_set: Build) -> None:
    from datasets import Image as ImageType

    cells = [{"bytes": b"none", "path": None}] + [
        {"bytes": file.read_bytes(), "path": None} for file in made(tmp_path)
    ]
    columns = {"image": cells, "label": ["x", "y", "y"]}
    saved(tmp_path / "saved", columns, image=ImageType(decode=False))
    (problem,) = data_set("saved-images", tmp_path / "saved").check()
    assert "split 'all', row 0: cannot be read as an image" in problem


def made(folder: Path) -> list[Path]:
    files = [folder / f"{i}.png" for i in range(2)]
    for i, file in enumerate(files):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(file)
    return files


def test_without_the_library_the_cure_is_named(
    images: Path, data_set: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saved_dataset, "find_spec", lambda _: None)
    with pytest.raises(BenchError, match="pip install datasets"):
        data_set("saved-images", images)
