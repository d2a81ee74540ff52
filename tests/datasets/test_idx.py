"""Gray images in IDX files: their bytes, splits and labels, and what is said of damaged ones."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import BenchError, DataSet, load, take
from bench.run.validity import build_stream

Build = Callable[..., DataSet]


def save(file: Path, array: np.ndarray, packed: bool = False) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    head = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    data = head + array.astype(np.uint8).tobytes()
    file.write_bytes(gzip.compress(data) if packed else data)


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """Domains ``pen`` and ``print``: 12 train and 6 test images of 3 classes, pen's packed."""
    for d, domain in enumerate(("pen", "print")):
        end = "" if d else ".gz"
        for s, (split, n) in enumerate((("train", 12), ("t10k", 6))):
            images = np.arange(n)[:, None, None] + np.zeros((n, 8, 8)) + 20 * s + 100 * d
            save(tmp_path / domain / f"{split}-images-idx3-ubyte{end}", images, not d)
            save(tmp_path / domain / f"{split}-labels-idx1-ubyte{end}", np.arange(n) % 3, not d)
    return tmp_path


def test_images_labels_and_splits_are_those_of_the_files(digits: Path, data_set: Build) -> None:
    data = data_set("idx", digits, size=16)
    assert (list(data.domains()), data.class_names) == (["pen", "print"], ("0", "1", "2"))
    assert (list(data.splits("pen")), data.input_shape) == (["test", "train"], (1, 16, 16))
    split = data.split("print", "train")
    assert split.y.tolist() == [0, 1, 2] * 4
    x = take(split.x, torch.tensor([5]))
    assert x.shape == (1, 1, 16, 16)
    assert x.unique().tolist() == pytest.approx([105 / 255])
    assert list(data.check()) == []
    assert list(data_set("idx", digits / "pen").domains()) == ["all"]


def test_a_stream_keeps_the_published_splits(digits: Path) -> None:
    stream_class = load("stream", "domain-shift")
    config = stream_class.Config(data={"name": "idx", "root": str(digits)}, source="print")
    built = build_stream(stream_class(config, 0))
    assert [len(p) for p in (built.source.adaptation, built.source.test)] == [12, 6]
    assert [d.name for d in built.domains] == ["pen"]


def test_damaged_files_are_named(digits: Path, data_set: Build) -> None:
    def complaint() -> str:
        try:
            (line,) = list(data_set("idx", digits).check())
        except BenchError as error:
            return str(error)
        return str(line)

    labels = digits / "print" / "t10k-labels-idx1-ubyte"
    save(labels, np.zeros(5))
    assert complaint() == f"{labels}: has 5 labels for 6 images: fetch both anew"
    labels.unlink()
    assert f"{labels}: is not there" in complaint()
    shutil.rmtree(digits / "print")
    images = digits / "pen" / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:40])
    assert complaint().startswith(f"{images}: cannot be read")
    images.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + bytes(12) + b"x"))
    assert complaint().startswith(f"{images}: is no IDX file of bytes in 3 dimensions, or is cut")
    shutil.rmtree(digits / "pen")
    assert "has no files NAME-images-idx3-ubyte: this layout is" in complaint()


def test_mnist_is_read_as_it_is_published(
    real_data: Callable[[str], Path], data_set: Build, tmp_path: Path
) -> None:
    for part in ("images-idx3", "labels-idx1"):
        file = real_data(f"t10k-{part}-ubyte.gz")
        (tmp_path / file.name).symlink_to(file)
    data = data_set("idx", tmp_path)
    assert len(data.class_names) == 10
    assert len(data.split("all", "test")) == 10_000
