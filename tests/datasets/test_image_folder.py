"""Folders of images: what is read, in which order, and what is said of a folder that is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import DataSet, LazyInputs, take
from bench.datasets import _images
from bench.errors import BenchError

from .conftest import save_image

Build = Callable[..., DataSet]


def test_domains_classes_and_samples_are_those_of_the_folders(
    image_folder: Path, data_set: Build
) -> None:
    data = data_set("image-folder", image_folder, size=16)
    assert (list(data.domains()), tuple(data.class_names)) == (["far", "near"], ("cat", "dog"))
    assert data.input_shape == (3, 16, 16)
    split = data.split("near", "all")
    assert isinstance(split.x, LazyInputs)
    assert split.y.tolist() == [0] * 10 + [1] * 10
    x = take(split.x, torch.tensor([3, 12]))
    assert (x.shape, x.dtype) == ((2, 3, 16, 16), torch.float32)
    expected = torch.tensor([[60, 0, 0], [42, 0, 40]]) / 255
    assert torch.equal(x[:, :, 5, 5], expected)
    assert split.x.nbytes == 20 * 3 * 16 * 16 * 4


def test_a_root_of_class_folders_is_one_domain(image_folder: Path, data_set: Build) -> None:
    data = data_set("image-folder", image_folder / "near")
    assert (list(data.domains()), tuple(data.class_names)) == (["all"], ("cat", "dog"))
    assert len(data.split("all", "all")) == 20


def test_height_and_width_may_differ(image_folder: Path, data_set: Build) -> None:
    data = data_set("image-folder", image_folder, size=[16, 24])
    assert take(data.split("far", "all").x, torch.tensor([0])).shape == (1, 3, 16, 24)


def test_gray_and_palette_images_are_read_as_color(image_folder: Path, data_set: Build) -> None:
    from PIL import Image

    Image.new("L", (9, 9), 51).save(image_folder / "near" / "cat" / "00.png")
    x = data_set("image-folder", image_folder).split("near", "all").x
    assert take(x, torch.tensor([1]))[0, :, 0, 0].tolist() == pytest.approx([0.2] * 3)


def test_the_cache_is_bounded_and_changes_nothing(
    image_folder: Path, data_set: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = data_set("image-folder", image_folder, size=16).split("near", "all").x
    order = torch.tensor([4, 1, 4, 7, 1])
    first = take(x, order)
    small = _images._Cache(2 * 3 * 16 * 16)
    monkeypatch.setattr(_images, "_cache", small)
    assert torch.equal(take(x, order), first)
    assert small.held == 2 * 3 * 16 * 16


def test_a_corruption_of_an_image_is_the_same_in_any_batch(
    image_folder: Path, data_set: Build
) -> None:
    data = data_set("image-folder", image_folder, size=32)
    clean = data.split("near", "all")
    noisy = data.corrupted(clean, "noise-2", "0/noise-2").x
    whole = take(noisy, torch.arange(20))
    assert torch.equal(take(noisy, torch.tensor([7, 2])), whole[[7, 2]])
    assert torch.equal(take(noisy.subset(torch.tensor([7, 2])), torch.tensor([1])), whole[[2]])
    other = take(data.corrupted(clean, "noise-2", "1/noise-2").x, torch.arange(20))
    assert not torch.equal(other, whole)
    assert noisy.sample_names() == clean.x.sample_names()  # what it is made of
    assert noisy.digest() != clean.x.digest()


def test_the_digest_is_that_of_contents_and_not_of_the_place(
    image_folder: Path, data_set: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data_set("image-folder", image_folder).digest()
    assert first.of == "contents"
    shutil.copytree(image_folder, tmp_path / "elsewhere")
    assert data_set("image-folder", tmp_path / "elsewhere").digest() == first
    save_image(tmp_path / "elsewhere" / "near" / "cat" / "0.png", (1, 1, 1))
    assert data_set("image-folder", tmp_path / "elsewhere").digest() != first
    monkeypatch.setattr("bench.io.folder_files.LARGEST_READ", 100)
    assert data_set("image-folder", image_folder).digest().of == "paths and sizes"


# --- bad input ------------------------------------------------------------------------------


def complaint(data_set: Build, root: Path) -> str:
    """The one line that is said of a folder when it is checked."""
    try:
        lines = list(data_set("image-folder", root).check())
    except BenchError as error:
        return str(error)
    (line,) = lines
    return line


def test_a_good_folder_has_nothing_to_complain_of(image_folder: Path, data_set: Build) -> None:
    assert list(data_set("image-folder", image_folder).check()) == []


def test_one_unreadable_image_is_named(image_folder: Path, data_set: Build) -> None:
    bad = image_folder / "near" / "dog" / "4.png"
    bad.write_bytes(bad.read_bytes()[:45])
    line = complaint(data_set, image_folder)
    assert line.startswith(f"{bad}: cannot be read as an image (")
    assert line.endswith("): replace or remove it")
    with pytest.raises(BenchError, match=r"dog/4\.png: cannot be read"):
        take(data_set("image-folder", image_folder).split("near", "all").x, torch.arange(20))


def test_a_missing_class_folder_is_named(image_folder: Path, data_set: Build) -> None:
    shutil.rmtree(image_folder / "far" / "dog")
    line = complaint(data_set, image_folder)
    assert line.startswith(
        f"{image_folder}/far/dog: is not there, and domain 'near' has this class"
    )


def test_a_domain_without_images_is_named(image_folder: Path, data_set: Build) -> None:
    for name in ("cat", "dog"):
        shutil.rmtree(image_folder / "far" / name)
        (image_folder / "far" / name).mkdir()
    line = complaint(data_set, image_folder)
    assert line == (
        f"{image_folder}/far: domain 'far' has no images: add some, or remove the folder"
    )


def test_a_root_one_folder_too_high_says_which_is_meant(tmp_path: Path, data_set: Build) -> None:
    for domain in ("near", "far"):
        save_image(tmp_path / "unpacked" / domain / "cat" / "0.png", (1, 2, 3))
    assert complaint(data_set, tmp_path).endswith(f"name {tmp_path}/unpacked as the root")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "is not there: name the folder with the data in it"),
        (lambda root: root.write_text("x"), "is a file: name the folder with the data in it"),
        (lambda root: root.mkdir(), "has no folders: this layout is ROOT/DOMAIN/CLASS/*.jpg"),
        (lambda root: (root / "a" / "b").mkdir(parents=True), "has the class 'b' alone"),
    ],
)
def test_a_root_that_is_no_such_folder_is_refused(
    tmp_path: Path, data_set: Build, make: Callable[[Path], object], said: str
) -> None:
    make(tmp_path / "root")
    line = complaint(data_set, tmp_path / "root")
    assert line.startswith(f"root {tmp_path / 'root'} ")
    assert said in line


def test_a_domain_of_another_layout_is_named(image_folder: Path, data_set: Build) -> None:
    save_image(image_folder / "notes" / "0.png", (1, 2, 3))
    assert complaint(data_set, image_folder).startswith(
        f"{image_folder}/notes: has no class folders, and {image_folder}/far has"
    )


# --- real data ------------------------------------------------------------------------------


def test_pacs_is_read_as_it_is_published(real_data: Callable[[str], Path], data_set: Build) -> None:
    data = data_set("image-folder", real_data("pacs_96px.zip"))
    assert list(data.domains()) == ["art_painting", "cartoon", "photo", "sketch"]
    assert len(data.class_names) == 7
    assert {len(data.split(d, "all")) for d in data.domains()} == {560}
    assert list(data.check()) == []


def test_a_folder_of_images_and_labels_is_another_data_set(
    tmp_path: Path, data_set: Callable[..., DataSet]
) -> None:
    for folder in ("images", "labels"):
        save_image(tmp_path / folder / "0.png", 3)
    with pytest.raises(BenchError, match="yolo-boxes and gta5 read this layout"):
        data_set("image-folder", tmp_path)


def test_a_file_that_was_changed_is_read_anew(
    image_folder: Path, data_set: Callable[..., DataSet]
) -> None:
    data = data_set("image-folder", image_folder, size=8)
    assert list(data.check()) == []
    (image_folder / "near" / "cat" / "3.png").write_bytes(b"no image any more")
    (problem,) = data.check()
    assert "near/cat/3.png: cannot be read as an image" in problem


def test_several_threads_read_the_same_and_name_the_same_file(
    image_folder: Path, data_set: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_images, "_cache", _images._Cache(0))
    x = data_set("image-folder", image_folder, size=8).split("near", "all").x
    order = torch.tensor([7, 3, 3, 19, 0])
    alone = take(x, order)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(take(x, order), alone)
    for bad in ("3", "7"):
        (image_folder / "near" / "cat" / f"{bad}.png").write_bytes(b"none")
    with pytest.raises(BenchError, match=r"cat/7.png: cannot be read"):
        take(x, order)
