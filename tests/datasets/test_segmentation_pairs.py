"""Images with masks: class numbers survive resizing, void does not count, wrong masks are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import BenchError, DataSet, load, take
from bench.run.validity import build_stream

from .conftest import save_image

Build = Callable[..., DataSet]


def save_mask(file: Path, numbers: np.ndarray, mode: str = "L") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8), "L")
    if mode == "P":
        image = image.convert("P")
        image.putdata(numbers.flatten().tolist())
    image.save(file)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Domains ``day`` and ``dusk``: 6 images of 20 x 30 pixels, masks of 0, 1, 2 and 7 for void."""
    for domain in ("day", "dusk"):
        for i in range(6):
            save_image(tmp_path / domain / "images" / f"{i}.png", (i, 0, 9), (20, 30))
            mask = np.zeros((20, 30))
            mask[:, 10:20], mask[:10, 20:], mask[15:, 20:] = 1, 2, 7
            save_mask(tmp_path / domain / "labels" / f"{i}.png", mask)
    return tmp_path


def test_masks_are_resized_to_numbers_that_were_there(pairs: Path, data_set: Build) -> None:
    data = data_set("segmentation-pairs", pairs, size=[13, 17], void=7)
    assert (list(data.domains()), len(data.class_names)) == (["day", "dusk"], 3)
    split = data.split("day", "all")
    assert (split.y.shape, split.y.dtype) == ((6, 13, 17), torch.uint8)
    assert split.y.unique().tolist() == [0, 1, 2, 255]
    assert take(split.x, torch.tensor([3])).shape == (1, 3, 13, 17)
    assert split.y[0, 6, 8] == 1
    assert split.y[0, 12, 16] == 255


def test_a_class_too_small_to_survive_resizing_still_counts(pairs: Path, data_set: Build) -> None:
    mask = np.zeros((20, 30))
    mask[3, 4] = 5
    save_mask(pairs / "day" / "labels" / "0.png", mask)
    data = data_set("segmentation-pairs", pairs, size=8, void=7)
    assert len(data.class_names) == 6
    assert 5 not in data.split("day", "all").y


def test_palette_masks_have_the_numbers_of_their_palette(pairs: Path, data_set: Build) -> None:
    mask = np.full((20, 30), 2)
    save_mask(pairs / "day" / "labels" / "0.png", mask, "P")
    data = data_set("segmentation-pairs", pairs, void=7)
    assert data.split("day", "all").y[0].unique().tolist() == [2]


def test_classes_may_be_named(pairs: Path, data_set: Build) -> None:
    before = data_set("segmentation-pairs", pairs, void=7).digest()
    (pairs / "classes.txt").write_text("road\nsky\ntree\n")
    assert data_set("segmentation-pairs", pairs, void=7).digest() != before
    assert data_set("segmentation-pairs", pairs, void=7).class_names == ("road", "sky", "tree")
    with pytest.raises(BenchError, match="names 3 classes, and the setting classes is 4"):
        data_set("segmentation-pairs", pairs, void=7, classes=4).split("day", "all")


def test_no_corruption_moves_what_a_mask_says(pairs: Path, data_set: Build) -> None:
    data = data_set("segmentation-pairs", pairs, void=7)
    kinds = {n.rpartition("-")[0] for p in ("test", "validation") for n in data.corruptions(p)}
    assert not kinds & {"rotation", "scale", "shear", "translation", "perspective", "occlusion"}
    assert {"noise", "gamma"} <= kinds


# --- bad input ------------------------------------------------------------------------------


def complaints(data_set: Build, root: Path, **settings: object) -> list[str]:
    try:
        return list(data_set("segmentation-pairs", root, **settings).check())
    except BenchError as error:
        return [str(error)]


def test_good_pairs_have_nothing_to_complain_of(pairs: Path, data_set: Build) -> None:
    assert complaints(data_set, pairs, void=7) == []


def test_a_mask_of_another_size_is_named(pairs: Path, data_set: Build) -> None:
    save_mask(pairs / "dusk" / "labels" / "4.png", np.zeros((30, 20)))
    assert complaints(data_set, pairs, void=7) == [
        f"{pairs}/dusk/labels/4.png: is of (30, 20) pixels (height, width), and its image 4.png of "
        "(20, 30): make the mask as large as the image"
    ]


def test_a_number_that_is_no_class_is_named(pairs: Path, data_set: Build) -> None:
    (line, _) = complaints(data_set, pairs, classes=3)
    assert line.startswith(
        f"{pairs}/day/labels/0.png: has the number 7, and 3 classes are numbered"
    )


def test_a_color_mask_is_named(pairs: Path, data_set: Build) -> None:
    save_image(pairs / "day" / "labels" / "2.png", (1, 1, 1), (20, 30))
    (line,) = complaints(data_set, pairs, void=7, classes=3)
    assert line.startswith(f"{pairs}/day/labels/2.png: is an image of mode RGB")


def test_an_image_without_a_mask_is_named(pairs: Path, data_set: Build) -> None:
    (pairs / "day" / "labels" / "2.png").unlink()
    (line,) = complaints(data_set, pairs, void=7)
    assert line.startswith(f"{pairs}/day/images/2.png: has no mask {pairs}/day/labels/2.png")


def test_a_domain_without_images_is_named(pairs: Path, data_set: Build) -> None:
    (pairs / "night" / "images").mkdir(parents=True)
    (line,) = complaints(data_set, pairs, void=7)
    assert line == f"{pairs}/night/images: domain 'night' has no images: add some"


def test_another_layout_is_refused(image_folder: Path, data_set: Build) -> None:
    (line,) = complaints(data_set, image_folder)
    assert "has no folder 'images' and none in its folders: this layout is" in line


# --- real data ------------------------------------------------------------------------------


def test_camvid_is_a_stream_from_day_to_dusk(real_data: Callable[[str], Path]) -> None:
    stream_class = load("stream", "domain-shift")
    root = str(real_data("camvid_240x180.zip"))
    data = {"name": "segmentation-pairs", "root": root, "size": [48, 64], "void": 11}
    config = stream_class.Config(data=data, source="0016E5", targets=["0006R0", "0001TP"])
    stream = stream_class(config, 0)
    built = build_stream(stream)
    assert (stream.task, stream.classes) == ("segmentation", 11)
    assert [d.name for d in built.domains] == ["0006R0", "0001TP"]
    assert set(built.source.adaptation.y.unique().tolist()) <= {*range(11), 255}


# --- other masks ----------------------------------------------------------------------------


def save_colors(file: Path, numbers: np.ndarray, colors: list[tuple[int, int, int]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(colors, dtype=np.uint8)[numbers.astype(int)]).save(file)


COLORS = [(128, 64, 0), (0, 0, 192), (64, 64, 64)]
LISTED = "name,r,g,b\nroad,128,64,0\nVoid,64,64,64\nsky,0,0,192\n"


@pytest.fixture
def colored(pairs: Path) -> Path:
    """The same masks in three colors: road, sky and, for all else, void."""
    for domain in ("day", "dusk"):
        for file in (pairs / domain / "labels").iterdir():
            numbers = np.array(Image.open(file))
            save_colors(file, np.minimum(numbers, 2), COLORS)
    (pairs / "colors.csv").write_text(LISTED)
    return pairs


def test_colors_are_classes_and_no_other_appears(colored: Path, data_set: Build) -> None:
    data = data_set("segmentation-pairs", colored, size=[13, 17])
    assert list(data.class_names) == ["road", "sky"]
    y = data.split("day", "all").y
    assert (y.shape, y.dtype) == ((6, 13, 17), torch.uint8)
    assert y.unique().tolist() == [0, 1, 255]
    assert [y[0, 6, 2], y[0, 6, 8], y[0, 12, 16]] == [0, 1, 255]


def test_colors_of_a_palette_are_read_as_colors(colored: Path, data_set: Build) -> None:
    expected = data_set("segmentation-pairs", colored, size=16).split("day", "all").y
    for file in (colored / "day" / "labels").iterdir():
        with Image.open(file) as image:
            image.convert("P", palette=Image.Palette.ADAPTIVE, colors=3).save(file)
    data = data_set("segmentation-pairs", colored, size=16)
    assert torch.equal(data.split("day", "all").y, expected)


def test_numbers_may_be_any_and_others_are_void(pairs: Path, data_set: Build) -> None:
    data = data_set("segmentation-pairs", pairs, size=[20, 30], ids=[2, 0])
    y = data.split("day", "all").y
    assert list(data.class_names) == ["2", "0"]
    assert [int(y[0, 2, 25]), int(y[0, 2, 2]), int(y[0, 2, 15]), int(y[0, 19, 25])] == [
        0, 1, 255, 255
    ]  # fmt: skip


def test_a_color_without_a_name_is_named(colored: Path, data_set: Build) -> None:
    mask = colored / "day" / "labels" / "2.png"
    save_colors(mask, np.zeros((20, 30)), [(1, 2, 3)])
    with pytest.raises(BenchError, match=r"2.png: has the color \(1, 2, 3\), which colors.csv"):
        data_set("segmentation-pairs", colored).split("day", "all")
    (colored / "colors.csv").write_text(LISTED.replace("192", "300"))
    with pytest.raises(BenchError, match=r"colors.csv:4: color 0, 0, 300: give r, g, b from 0"):
        _ = data_set("segmentation-pairs", colored).class_names
