"""Data sets in their published layouts: right trees pass, spoiled ones are named with a cure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import published_layouts as published
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import BenchError
from bench.cli import app
from bench.contracts.dataset import DataSet, data_set


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's cache, away from that of the machine."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BENCH_CACHE", str(folder))
    return folder


def made(name: str, root: Path, **changes: Any) -> DataSet:
    """A data set of a fresh tree."""
    return data_set(name, {**published.written(name, root), **changes})


def options(name: str, root: Path) -> list[str]:
    """What `bench data check` takes for a fresh tree."""
    settings = published.written(name, root)
    rest = [f"{key}={json.dumps(value)}" for key, value in settings.items() if key != "root"]
    return [name, "--root", str(root), *(part for each in rest for part in ("--set", each))]


@pytest.mark.parametrize("name", published.WRITERS)
def test_a_right_tree_passes(name: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["data", "check", *options(name, tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"ok  {name} in ")


# --- what is wrong ----------------------------------------------------------------------------


def removed(file: Path) -> None:
    file.unlink()


def without_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name(f"elsewhere{folder.suffix}"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def in_color(file: Path) -> None:
    """As `convert("RGB")` makes a mask of colors of its palette."""
    with Image.open(file) as image:
        image.convert("RGB").save(file)


def as_gray_values(file: Path) -> None:
    """As `convert("L")` makes gray values of the colors of a palette."""
    with Image.open(file) as image:
        image.convert("L").save(file)


def with_ringing(file: Path) -> None:
    """A mask that was saved as JPEG: its numbers are blended at edges."""
    with Image.open(file) as image:
        mask = np.array(image)
    Image.fromarray(mask).save(file, "JPEG", quality=20)
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0] = 77
    Image.fromarray(pixels).save(file, "PNG")


def smaller(file: Path) -> None:
    with Image.open(file) as image:
        image.resize((image.width // 2, image.height // 2)).save(file)


def photo(file: Path) -> None:
    kept = published.picture(file.with_suffix(".png"), 9)
    Image.open(kept).save(file, "JPEG")
    kept.unlink()


def no_json(file: Path) -> None:
    file.write_text(file.read_text()[:-3])


def not_utf8(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\xe9\xff")


def changed(change: Callable[[Any], None]) -> Callable[[Path], None]:
    """What changes the content of a JSON file."""

    def spoil(file: Path) -> None:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def spoil(file: Path) -> None:
        content = file.read_text(encoding="utf-8")
        assert old in content
        file.write_text(content.replace(old, new, 1), encoding="utf-8")

    return spoil


TRAIN = "annotations/instances_train2017.json"
ANSWERS = "v2_mscoco_train2014_annotations.json"
ASKED = "v2_OpenEnded_mscoco_train2014_questions.json"
SPEAKER = "dat/absa/Bing3Domains/asc/Speaker/train.json"
ULM = "gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png"

SPOILED: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("gta5", "labels/00002.png", removed, "is not there: fetch the mask of 00002.png"),
    ("gta5", "labels/00002.png", in_color, "is an image of mode RGB"),
    ("gta5", "labels/00002.png", as_gray_values, "has the number"),
    ("gta5", "labels/00003.png", with_ringing, "has the number"),
    ("gta5", "labels/00002.png", smaller, "and its image 00002.png of (36, 50): fetch both anew"),
    ("gta5", "labels/00005.png", cut, "cannot be read as an image"),
    ("gta5", "images/00001.png", cut, "cannot be read as an image"),
    ("gta5", "split.mat", cut, "has not the numbers trainIds, valIds, testIds"),
    ("gta5-cls", "labels/00002.png", smaller, "and its image 00002.png of (36, 50)"),
    ("gta5-det", "labels/00002.png", in_color, "is an image of mode RGB"),
    ("cityscapes", ULM, removed, "is not there: unpack gtFine_trainvaltest.zip"),
    ("cityscapes", "leftImg8bit/val", moved, "has no CITY/*_leftImg8bit.png: unpack"),
    ("cityscapes", ULM, in_color, "is an image of mode RGB"),
    ("supervisely-person", "ds2/ann/p3.png.json", no_json, "is not JSON"),
    ("supervisely-person", "ds2/ann/p3.png.json", removed, "is not there: fetch the annotation"),
    (
        "supervisely-person", "ds2/ann/p3.png.json", replaced("person_bmp", "horse"),
        "object 0: class 'horse' is none of person_bmp, person_poly, neutral",
    ),
    (
        "supervisely-person", "ds1/ann/p2.png.json",
        changed(lambda c: c["objects"][0]["bitmap"].update(data="bm90aGluZw==")),
        "object 0: its bitmap cannot be read",
    ),
    (
        "supervisely-person", "ds1/ann/p2.png.json",
        changed(lambda c: c["objects"][0]["bitmap"].update(origin=[40, 4])),
        "object 0: its bitmap of 12 x 12 pixels at (40, 4) leaves the image",
    ),
    (
        "supervisely-person", "ds1/ann/p2.png.json", changed(lambda c: c["size"].update(width=9)),
        "leaves the image",
    ),
    ("baidu-person", "clean_images/profiles/1-profile.jpg", removed, "is not there: fetch"),
    ("baidu-person", "clean_images/profiles/1-profile.jpg", photo, "it is no mask"),
    ("baidu-person", "clean_images/profiles/1-profile.jpg", smaller, "and its image 1.jpg of"),
    ("cifar10", "cifar-10-batches-py/data_batch_3", cut, "is no batch of CIFAR-10"),
    ("cifar10", "cifar-10-batches-py/test_batch", removed, "is no batch of CIFAR-10"),
    ("cifar10", "CIFAR-10-C/fog.npy", cut, "unpack CIFAR-10-C.tar anew"),
    ("cifar10", "CIFAR-10-C/labels.npy", removed, "unpack CIFAR-10-C.tar anew"),
    ("imagenet-c", "weather/fog/5/n01", without_folder, "is not there, and domain 'clean'"),
    ("imagenet-c", "frost/3/n01/ILSVRC2012_val_1.JPEG", cut, "cannot be read as an image"),
    ("spoken-digits", "3_theo_7.wav", cut, "256 samples or more in one channel"),
    ("spoken-digits", "3_theo_7.wav", photo, "cannot be read as sound"),
    ("spoken-digits", "3_theo_7.wav", moved, "is not called DIGIT_SPEAKER_NUMBER.wav"),
    ("coco2017", "val2017/000000000139.jpg", removed, "unpack val2017.zip into"),
    ("coco2017", TRAIN, no_json, "is not JSON"),
    ("coco2017", TRAIN, removed, "is not there: unpack annotations_trainval2017.zip"),
    (
        "coco2017", TRAIN, changed(lambda c: c["annotations"][1].update(category_id=90)),
        "annotation 1: category_id 90 is no category",
    ),
    (
        "coco2017", TRAIN, changed(lambda c: c["annotations"][2].update(id=900)),
        "annotation 2: id 900 is there twice",
    ),
    (
        "coco2017", TRAIN, changed(lambda c: c["annotations"][0].update(image_id=7)),
        "it needs bbox [x, y, width, height] and the image_id",
    ),
    (
        "coco2017", TRAIN, changed(lambda c: c["annotations"][0].update(bbox=[50, 30, 50, 5])),
        "leaves its image",
    ),
    ("coco2017-cls", "train2017/000000000009.jpg", cut, "cannot be read as an image"),
    (
        "vqav2", ANSWERS, changed(lambda c: c["annotations"][0].update(answers=[])),
        "annotation 0: has no answers: remove it and its question",
    ),
    ("vqav2", ANSWERS, changed(lambda c: c["annotations"].pop()), "has no answers to 1 questions"),
    ("vqav2", ANSWERS, not_utf8, "is not UTF-8 text"),
    ("vqav2", ASKED, changed(lambda c: c.pop("questions")), "has no list 'questions'"),
    ("vqav2", "val2014/COCO_val2014_000000000001.jpg", removed, "unpack COCO's val2014.zip"),
    ("absa-reviews", SPEAKER, replaced('"polarity": "+"', '"polarity": "1"'), "polarity is '1'"),
    ("absa-reviews", SPEAKER, no_json, "is not JSON"),
    ("absa-reviews", "hl5/Nokia6610.txt", not_utf8, "is not UTF-8 text"),
    ("absa-reviews", "semeval/rest.xml", no_json, "is not XML"),
    ("20newsgroups", "20news-bydate-test/sci.space", without_folder, "is not there, and"),
    ("20newsgroups", "20news-bydate-test", moved, "has no folders of groups: unpack"),
    ("no-robots", "data/test-00000-of-00001.parquet", cut, "cannot be read as parquet"),
    ("no-robots", "data/test-00000-of-00001.parquet", removed, "has no test-*.parquet"),
    ("medicine-tasks", "RCT/test.json", replaced('"gold_index": 1', '"gold_index": 2'), ":2: gold"),
    ("law-tasks", "scotus/test.json", replaced('["yes", "no"]', "[]"), "options is []: give two"),
    ("law-tasks", "scotus/test.json", not_utf8, "is not UTF-8 text"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "place", "spoil", "said"), SPOILED)
def test_a_spoiled_tree_is_named_with_file_and_cure(
    name: str, place: str, spoil: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    given = options(name, tmp_path)
    spoil(tmp_path / place)
    result = CliRunner().invoke(app, ["data", "check", *given])
    assert result.exit_code in (1, 2), result.output
    output = f"{result.output}{result.exception}"
    lines = [line for line in output.splitlines() if said in line]
    assert len(lines) == 1, output
    named = tmp_path / place
    parents = (str(named), str(named.parent))  # of what is missing, the folder at least
    assert any(each in lines[0] for each in parents)
    assert ": " in lines[0].partition(said)[0] + said


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    for name in published.WRITERS.keys() - published.OVER_OTHERS:
        try:
            problems = list(data_set(name, {"root": str(tmp_path)}).check())
        except BenchError as error:
            problems = [str(error)]
        assert problems, name
        assert str(tmp_path) in problems[0]
