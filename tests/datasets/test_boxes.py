"""Images with boxes, of YOLO's and of COCO's files: equal boxes, and wrong ones named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import BenchError, DataSet, load, take

from .conftest import save_image

Build = Callable[..., DataSet]


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Four images of 20 x 40 pixels: two boxes, one, none, and none without a file."""
    root = tmp_path / "yolo"
    for i in range(4):
        save_image(root / "images" / f"{i}.png", (i, 50, 9), (20, 40))
    (root / "labels").mkdir()
    (root / "labels" / "0.txt").write_text("1 0.5 0.5 0.5 1.0\n0 0.25 0.5 0.5 0.5\n")
    (root / "labels" / "1.txt").write_text("1 0.5 0.25 0.2 0.5\n")
    (root / "labels" / "2.txt").write_text("\n")
    (root / "names.yaml").write_text("names:\n  0: cat\n  1: dog\n")
    return root


@pytest.fixture
def coco(yolo: Path, tmp_path: Path) -> Path:
    """The same in COCO's format, with category ids that leave numbers out, and a crowd."""
    root = tmp_path / "coco"
    root.mkdir()
    (root / "pictures").symlink_to(yolo / "images")
    boxes = [(0, 18, [10, 0, 20, 20]), (0, 3, [0, 5, 20, 10]), (1, 18, [16, 0, 8, 10])]
    content = {
        "images": [
            {"id": 10 + i, "file_name": f"{i}.png", "width": 40, "height": 20} for i in range(4)
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            *({"image_id": 10 + i, "category_id": c, "bbox": b} for i, c, b in boxes),
            {"image_id": 12, "category_id": 3, "bbox": [0, 0, 40, 20], "iscrowd": 1},
        ],
    }
    (root / "all.json").write_text(json.dumps(content))
    return root


EXPECTED = [
    [[1, 0.25, 0, 0.75, 1], [0, 0, 0.25, 0.5, 0.75]],
    [[1, 0.4, 0, 0.6, 0.5], [-1] * 5],
    [[-1] * 5] * 2,
    [[-1] * 5] * 2,
]


@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_boxes_are_corners_and_missing_ones_are_minus_one(
    layout: str, data_set: Build, request: pytest.FixtureRequest
) -> None:
    data = data_set(f"{layout}-boxes", request.getfixturevalue(layout), size=16)
    assert (data.task, data.class_names, data.input_shape) == (
        "detection", ("cat", "dog"), (3, 16, 16)
    )  # fmt: skip
    split = data.split("all", "all")
    assert split.y.dtype == torch.float32
    assert torch.allclose(split.y, torch.tensor(EXPECTED, dtype=torch.float32))
    assert list(data.check()) == []
    more = data_set(f"{layout}-boxes", data.root, boxes=5).split("all", "all").y
    assert more.shape == (4, 5, 5)


def test_one_domain_has_corruptions_that_move_nothing(yolo: Path) -> None:
    stream_class = load("stream", "domain-shift")
    chosen = {"name": "yolo-boxes", "root": str(yolo), "size": 16}
    stream = stream_class(stream_class.Config(data=chosen, source_share=0.5, test=0.5), 0)
    assert not {"rotation-1", "translation-1"} & set(stream.domain_names())
    assert stream.domain(stream.domain_names()[0]).test.y.shape == (1, 2, 5)


# --- bad input ------------------------------------------------------------------------------


def complaint(data_set: Build, name: str, root: Path, **settings: Any) -> str:
    try:
        (line,) = list(data_set(name, root, **settings).check())
    except BenchError as error:
        return str(error)
    return str(line)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.5 0.5", "class 2, and 2 classes are numbered from 0 to 1"),
        ("0 0.5 0.5 0.5", "a line is 'class cx cy w h' in numbers"),
        ("0 0.5 0.5 1.5 0.5", "the box -0.25, 0.25, 1.25, 0.75 (left, upper, right, lower"),
        ("0 0.5 0.5 0 0.5", "is empty or leaves its image"),
        ("0 300 20 40 50", "is empty or leaves its image"),
    ],
)
def test_a_wrong_line_of_yolo_is_named(line: str, said: str, yolo: Path, data_set: Build) -> None:
    (yolo / "labels" / "2.txt").write_text(f"0 0.5 0.5 0.5 0.5\n{line}\n")
    found = complaint(data_set, "yolo-boxes", yolo)
    assert found.startswith(f"{yolo}/labels/2.txt:2: ")
    assert said in found


def test_missing_parts_of_yolo_are_named(yolo: Path, data_set: Build) -> None:
    assert "has 2 boxes, and the setting boxes is 1" in complaint(
        data_set, "yolo-boxes", yolo, boxes=1
    )
    (yolo / "names.yaml").unlink()
    assert complaint(data_set, "yolo-boxes", yolo) == (
        f"{yolo}/names.yaml: is not there: give it the names of classes"
    )
    (yolo / "labels").rename(yolo / "other")
    assert f"{yolo}/labels: is not there" in complaint(data_set, "yolo-boxes", yolo)
    (yolo / "images").rename(yolo / "pictures")
    assert "has no folder 'images' and none in its folders" in complaint(
        data_set, "yolo-boxes", yolo
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"category_id": 4}, "annotation 0 is "),
        ({"image_id": 99}, "image_id and category_id that are there"),
        ({"bbox": [0, 0, 50, 10]}, "annotation 0: the box 0, 0, 1.25, 0.5"),
    ],
)
def test_a_wrong_annotation_of_coco_is_named(
    change: dict[str, Any], said: str, coco: Path, data_set: Build
) -> None:
    file = coco / "all.json"
    content = json.loads(file.read_text())
    content["annotations"][0] |= change
    file.write_text(json.dumps(content))
    found = complaint(data_set, "coco-boxes", coco)
    assert found.startswith(f"{file}: annotation 0")
    assert said in found


def test_other_files_of_coco_are_named(coco: Path, data_set: Build) -> None:
    content = json.loads((coco / "all.json").read_text())
    content["categories"] = content["categories"][:1]
    (coco / "other.json").write_text(json.dumps(content))
    assert complaint(data_set, "coco-boxes", coco).startswith(
        f"{coco}/other.json: has other categories than {coco}/all.json"
    )
    (coco / "other.json").write_text("[1]")
    assert "has not the lists images, annotations, categories" in complaint(
        data_set, "coco-boxes", coco
    )
    (coco / "other.json").unlink()
    (coco / "pictures" / "3.png").unlink()
    assert complaint(data_set, "coco-boxes", coco) == (
        f"{coco}/all.json: image '3.png' is not in {coco}: add it"
    )


def test_images_of_one_name_in_several_folders_are_told_apart(coco: Path, data_set: Build) -> None:
    file = coco / "all.json"
    content = json.loads(file.read_text())
    for value, folder in enumerate(("day", "dusk", "parts/dusk")):
        save_image(coco / folder / "new.png", 60 * value + 60, (20, 40))

    def seen(json_file: Path, name: str) -> int:
        content["images"][0]["file_name"] = name
        file.unlink(missing_ok=True)
        json_file.write_text(json.dumps(content))
        split = data_set("coco-boxes", coco, size=8).split(json_file.stem, "all")
        json_file.unlink()
        return round(float(take(split.x, torch.tensor([0])).mean()) * 255)

    assert [seen(file, f"{d}/new.png") for d in ("day", "dusk", "parts/dusk")] == [60, 120, 180]
    assert seen(coco / "parts" / "inner.json", "../dusk/new.png") == 120
    assert seen(coco / "day" / "inner.json", "new.png") == 60  # beside the file
    with pytest.raises(BenchError, match=r"'new.png' is .*day/new.png or .*: give file_name its"):
        seen(file, "new.png")
    for folder in ("day", "dusk"):
        (coco / folder / "same.json").write_text(json.dumps(content))
    with pytest.raises(BenchError, match=r"domain 'same' is also .*day/same.json"):
        data_set("coco-boxes", coco)


# --- real data ------------------------------------------------------------------------------


def test_coco128_is_read_as_it_is_published(
    real_data: Callable[[str], Path], data_set: Build
) -> None:
    data = data_set("yolo-boxes", real_data("coco128_train_320px.zip"))
    assert (len(data.class_names), data.class_names[0]) == (80, "person")
    y = data.split("all", "all").y
    assert int((y[..., 0] >= 0).sum()) == 929
    assert list(data.check()) == []
