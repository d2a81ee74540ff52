"""Objects that are prompted by their boxes: a hand-made map of labels, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from PIL import Image

from bench import BenchError, DataSet, load
from bench.contracts.data import subset
from bench.contracts.dataset import data_set
from bench.run.validity import build_stream

MAP = """
    ........##......
    .aaa....##...b..
    .aaaa...##..bbb.
    ...aa...##...b..
    ....a...........
    .....aa.....?...
    .....aa....??...
    ................
    ..cc............
    ..cc....dddddd..
    ........d....d..
    ........d.ee.d..
    ........d.ee.d..
    ........d....d..
    ........dddddd..
    ................
"""
"""Of 16 x 16 pixels: a and # of the first class, b and d of the second, c and e of the third."""
CLASS = {".": 0, "a": 1, "#": 1, "b": 2, "d": 2, "c": 3, "e": 3, "?": 255}
ROWS = [line.strip() for line in MAP.strip().splitlines()]
LETTERS = np.array([list(row) for row in ROWS])
BOXES = {"a": (1, 1, 7, 7), "#": (8, 0, 10, 4), "b": (12, 1, 15, 4), "c": (2, 8, 4, 10),
         "d": (8, 9, 14, 15), "e": (10, 11, 12, 13)}  # fmt: skip
PIXELS = {letter: int((letter == LETTERS).sum()) for letter in BOXES}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def write(root: Path, domain: str = "here", images: int = 1) -> Path:
    """Images of which the last has the map's labels, and the others none but background."""
    for kind in ("images", "labels"):
        (root / domain / kind).mkdir(parents=True)
    (root / "classes.txt").write_text("background\nfirst\nsecond\nthird\n")
    numbers = np.vectorize(CLASS.get)(LETTERS).astype(np.uint8)
    for i in range(images):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / domain / "images" / f"{i}.png")
        mask = numbers if i == images - 1 else np.zeros_like(numbers)
        Image.fromarray(mask).save(root / domain / "labels" / f"{i}.png")
    return root


def prompts(root: Path, size: int = 16, **settings: Any) -> DataSet:
    data = {"name": "segmentation-pairs", "root": "data", "size": size}
    given = {"data": data, "least": 1, "objects": 99, **settings}
    return data_set("box-prompts", {"root": str(root), **given})


def test_each_region_of_a_hand_made_map_has_its_tight_box_and_its_mask(tmp_path: Path) -> None:
    write(tmp_path / "data", images=3)
    data = prompts(tmp_path)
    assert (data.domains(), list(data.splits("here"))) == (["here"], ["all"])
    split = data.split("here", "all")
    x = split.x[torch.arange(len(split))]
    largest = ["d", "a", "#"]  # b has 5 pixels: regions below 10 are noise of masks
    assert [PIXELS[letter] for letter in BOXES if letter not in largest] == [5, 4, 4]
    assert PIXELS["#"] < 10
    assert x["box"].tolist() == [list(map(float, BOXES[letter])) for letter in ("d", "a")]
    assert (x["image"].shape, x["box"].dtype) == ((2, 3, 16, 16), torch.float32)
    assert split.y.dtype == torch.uint8
    void = LETTERS == "?"
    for mask, letter in zip(split.y.numpy(), ("d", "a"), strict=True):
        # The ring leaves out what it is around; corners hang together; void stays void.
        assert np.array_equal(mask, np.where(void, 255, letter == LETTERS))
    with Image.open(tmp_path / "data" / "here" / "images" / "2.png") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    torch.testing.assert_close(x["image"], pixels.expand(2, -1, -1, -1))
    assert len(set(split.x.sample_names())) == 1  # of one image: one side of every division
    one = subset(split.x, torch.tensor([1]))
    assert one[torch.tensor([0])]["box"].tolist() == [[1, 1, 7, 7]]
    assert one.digest() != subset(split.x, torch.tensor([0])).digest()


def test_boxes_are_in_pixels_of_the_resized_image(tmp_path: Path) -> None:
    write(tmp_path / "data")
    found = prompts(tmp_path, size=32).split("here", "all")
    boxes = found.x[torch.arange(len(found))]["box"]
    every = {tuple(2 * edge for edge in box) for box in BOXES.values()}
    assert {tuple(box) for box in boxes.tolist()} == every  # each has 16 pixels or more
    areas = (found.y == 1).sum(dim=(1, 2)).tolist()
    assert areas == sorted((4 * n for n in PIXELS.values()), reverse=True)


@pytest.mark.parametrize(
    ("settings", "letters"),
    [
        ({"objects": 3}, "da#"),
        ({"least": 5}, "dab"),
        ({"least": 7}, "da"),
        ({"classes": ["third", "second"]}, "dbce"),
        ({"classes": ["background"]}, ""),
    ],
)
def test_settings_say_which_regions_are_objects(
    settings: dict[str, Any], letters: str, tmp_path: Path
) -> None:
    write(tmp_path / "data")
    found = prompts(tmp_path, size=32, **settings).split("here", "all")
    boxes = [tuple(box) for box in found.x[torch.arange(len(found))]["box"].tolist()]
    if letters:
        assert boxes == [tuple(2 * edge for edge in BOXES[letter]) for letter in letters]
    else:
        assert boxes[0] == (0, 0, 32, 32)


@pytest.mark.parametrize(
    ("data", "settings", "said"),
    [
        ({"name": "image-folder"}, {}, "data 'image-folder' is classification, and objects are"),
        ({}, {"classes": ["frist"]}, "classes: 'frist' is none of segmentation-pairs's; did you"),
        ({}, {"least": 17}, "split 'all' has no region whose box has 17 pixels a side: set"),
        (
            {"name": "box-prompts", "data": {"name": "segmentation-pairs"}, "least": 1}, {},
            "samples of data 'box-prompts' are image, box: take data whose samples are images",
        ),
        ({"name": "segmentation-pears"}, {}, "segmentation-pears"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    data: dict[str, Any], settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write(tmp_path / "data")
    given = {"root": "data", **(data or {"name": "segmentation-pairs", "size": 16})}
    with pytest.raises(BenchError, match=said) as told:
        prompts(tmp_path, data=given, **settings).split("here", "all")
    assert "\n" not in str(told.value)


def test_data_must_be_named() -> None:
    with pytest.raises((BenchError, pydantic.ValidationError), match="give it as"):
        data_set("box-prompts", {"root": ".", "data": 3})


def test_a_stream_of_two_such_sets_has_objects_of_both(tmp_path: Path) -> None:
    sets = {}
    for name in ("one", "two"):
        write(tmp_path / name, images=4)
        labels = tmp_path / name / "here" / "labels"
        for i in range(4):
            (labels / f"{i}.png").write_bytes((labels / "3.png").read_bytes())
            image = tmp_path / name / "here" / "images" / f"{i}.png"
            Image.fromarray(np.full((16, 16, 3), i + 9 * len(sets), np.uint8)).save(image)
        inner = {"name": "segmentation-pairs", "root": name}
        sets[name] = {"name": "box-prompts", "data": inner, "objects": 2}
    data = {"name": "several", "root": str(tmp_path), "size": 32, "sets": sets}
    stream_class: Any = load("stream", "domain-shift")
    choice = {"data": data, "source": "one", "targets": ["two"]}
    config = stream_class.Config.model_validate(choice)
    stream = stream_class(config, 0)
    assert (stream.task, stream.classes, stream.input_shape) == ("segmentation", 2, (3, 32, 32))
    built = build_stream(stream)
    (target,) = built.domains
    assert len(target.adaptation) + len(target.test) == 8
    assert not {*target.adaptation.x.sample_names()} & {*target.test.x.sample_names()}
    assert len(stream_class.data_digest(config)) == 64
    corrupted = data_set("several", {k: v for k, v in data.items() if k != "name"}).corrupted(
        target.test, "noise-1", "key"
    )
    noisy, plain = (each.x[torch.arange(2)] for each in (corrupted, target.test))
    assert torch.equal(noisy["box"], plain["box"])
    assert not torch.equal(noisy["image"], plain["image"])
