"""`bench check --data`: every data set that ships passes, and what is wrong with one is named."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import published_layouts as published
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from bench import BenchError, registry
from bench.cli import app
from bench.conformance import check_component
from bench.contracts.dataset import data_set

# --- a tiny folder of every layout ------------------------------------------------------------


def image(file: Path, number: int, size: tuple[int, int] = (12, 10)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)


def text(file: Path, content: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def image_folder(root: Path) -> None:
    for i in range(8):
        image(root / ("near", "far")[i % 2] / ("cat", "dog")[i // 4] / f"{i}.png", i)


def image_table(root: Path) -> None:
    for i in range(8):
        image(root / "images" / f"{i}.png", i)
    rows = [f"images/{i}.png,{i % 2},{i // 4}" for i in range(8)]
    text(root / "metadata.csv", "\n".join(["file,label,domain", *rows]))


def idx(root: Path) -> None:
    for name, shape in (("train-images-idx3", (6, 9, 9)), ("train-labels-idx1", (6,))):
        values = (np.arange(np.prod(shape)) % 2).astype(np.uint8)
        head = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
        (root / f"{name}-ubyte.gz").write_bytes(gzip.compress(head + values.tobytes()))


def segmentation_pairs(root: Path) -> None:
    for i in range(4):
        image(root / "images" / f"{i}.png", i)
        (root / "labels").mkdir(exist_ok=True)
        mask = np.random.default_rng(i).integers(0, 3, (12, 10), dtype=np.uint8)
        Image.fromarray(mask).save(root / "labels" / f"{i}.png")


def yolo_boxes(root: Path) -> None:
    text(root / "names.yaml", "names: [cat, dog]\n")
    for i in range(4):
        image(root / "images" / f"{i}.png", i)
        text(root / "labels" / f"{i}.txt", f"{i % 2} 0.5 0.5 0.4 0.4\n")


def coco_boxes(root: Path) -> None:
    boxes = []
    for i in range(4):
        image(root / "images" / f"{i}.png", i)
        box = {"id": i + 1, "image_id": i, "category_id": i % 2 + 1, "bbox": [1, 1, 5, 5]}
        boxes.append({**box, "area": 25, "iscrowd": 0})
    images = [{"id": i, "file_name": f"{i}.png", "height": 12, "width": 10} for i in range(4)]
    names = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    written = {"images": images, "annotations": boxes, "categories": names}
    text(root / "all.json", json.dumps(written))


def vqa_folder(root: Path) -> None:
    questions = []
    for i in range(4):
        image(root / "images" / f"{i}.png", i)
        questions.append([f"is it {i}?", ("yes", "no")[i % 2], i])
    text(root / "questions.json", json.dumps(questions))
    text(root / "answers.txt", "yes\nno\n")


def text_table(root: Path) -> None:
    rows = "\n".join(f"book number {i},{('good', 'bad')[i % 2]}" for i in range(6))
    text(root / "books.csv", f"text,label\n{rows}\n")


def customer_reviews(root: Path) -> None:
    text(root / "shop" / "camera.txt", "size[+2]##it is small\nzoom[-1]##it is slow\n")


def conllu(root: Path) -> None:
    def sentence(i: int) -> str:
        lines = [f"# sent_id = web-{i}", f"1\tbook{i}\tbook\tNOUN\tNN\t_\t0\troot\t_\t_"]
        return "\n".join([*lines, f"2\truns{i}\trun\tVERB\tVB\t_\t1\tdep\t_\t_", ""])

    text(root / "web.conllu", "\n".join(map(sentence, range(4))) + "\n")


def question_answer(root: Path) -> None:
    rows = [{"question": f"what is {i}", "answer": f"number {i} it is"} for i in range(4)]
    text(root / "sums.jsonl", "\n".join(map(json.dumps, rows)))


def saved_images(root: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageType

    rows = {"image": [], "label": []}
    for i in range(4):
        content = io.BytesIO()
        Image.new("RGB", (9, 9), (i, 0, 0)).save(content, "PNG")
        rows["image"].append({"bytes": content.getvalue(), "path": None})
        rows["label"].append(i % 2)
    features = Features({"image": ImageType(), "label": Value("int64")})
    Dataset.from_dict(rows, features=features).save_to_disk(str(root / "saved"))


def saved_texts(root: Path) -> None:
    from datasets import Dataset

    rows = {"text": [f"book {i}" for i in range(4)], "label": ["good", "bad"] * 2}
    Dataset.from_dict(rows).save_to_disk(str(root / "saved"))


WRITERS: dict[str, Callable[[Path], None]] = {
    name.__name__.replace("_", "-"): name
    for name in (
        image_folder, image_table, idx, segmentation_pairs, yolo_boxes, coco_boxes, vqa_folder,
        text_table, customer_reviews, conllu, question_answer, saved_images, saved_texts,
    )
} | published.WRITERS  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project's cache, away from that of the machine."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_every_layout_has_a_folder_here() -> None:
    assert {*WRITERS, "digits", "docstrings"} == set(registry.entries("dataset"))


@pytest.mark.parametrize("name", registry.entries("dataset"))
def test_every_data_set_keeps_the_contract(name: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"packages": ["networkx"]} if name == "docstrings" else {}
    if name in WRITERS:
        if name.startswith("saved") and find_spec("datasets") is None:
            pytest.skip("the library datasets is not installed")
        WRITERS[name](tmp_path)
        settings = {"root": str(tmp_path), **published.SETTINGS.get(name, {})}
    results = list(check_component("dataset", name, settings=settings))
    task = getattr(registry.load("dataset", name), "task", "")
    known = task in registry.entries("task")
    failed = [r.line for r in results if not r.passed and (known or "unknown task" not in r.why)]
    assert not failed, "\n".join(failed)
    assert len(results) == 7


ALIKE = (
    {"customer-reviews", "absa-reviews"},
    {"segmentation-pairs", "gta5", "gta5-cls", "gta5-det", "several"},
    {"medicine-tasks", "law-tasks"},
)
"""Layouts of which one folder may rightly be read as another, too."""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny folder of each layout."""
    made = {}
    for name, write in WRITERS.items():
        if not name.startswith("saved") or find_spec("datasets") is not None:
            made[name] = tmp_path_factory.mktemp(name)
            write(made[name])
    return made


@pytest.mark.parametrize("name", [n for n in WRITERS if n not in published.OVER_OTHERS])
def test_the_folder_of_another_layout_is_never_all_right(name: str, roots: dict[str, Path]) -> None:
    """In one line that names the folder, or a file in it."""
    same = {other for other in WRITERS if WRITERS[other] is WRITERS[name]}
    for other in roots.keys() - same.union(*(group for group in ALIKE if name in group)):
        try:
            problems = list(data_set(name, {"root": str(roots[other])}).check())
        except BenchError as error:
            problems = [str(error)]
        assert problems, f"{name} reads the folder of {other}"
        if name in roots:
            assert str(roots[other]) in problems[0]


WITH_IMAGES = [
    name
    for name in WRITERS
    if name.split("-")[0] in ("image", "segmentation", "yolo", "coco", "vqa")
]


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_one_image_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    bad = sorted(f for f in tmp_path.rglob("*.png") if f.parent.name != "labels")[1]
    bad.write_bytes(bad.read_bytes()[:40])
    problems = list(data_set(name, {"root": str(tmp_path)}).check())
    assert problems
    assert all(line.startswith(f"{bad}: cannot be read as an image (") for line in problems)
    assert problems[0].endswith("): replace or remove it")


# --- what is wrong ----------------------------------------------------------------------------

BROKEN = '''
import torch
from bench import DataSet, LazyInputs, Split, register


class Rows(LazyInputs):
    def __init__(self, n):
        super().__init__(torch.arange(n))

    def read(self, positions):
        return torch.arange(len(positions)).float().unsqueeze(1)  # depends on the batch

    def names(self, positions):
        return [str(i) for i in positions.tolist()]

    @property
    def sample_types(self):
        return {"": ((1,), torch.float32)}


class Base(DataSet):
    """Ten numbers."""

    class_names = ("low", "high")
    input_shape = (1,)

    def domains(self):
        return ["all"]

    def split(self, domain, name):
        return Split(torch.arange(10.0).unsqueeze(1), torch.arange(10) % 2)


@register("dataset", "by-batch")
class ByBatch(Base):
    """Reads by its place in the batch."""

    def split(self, domain, name):
        return Split(Rows(10), torch.arange(10) % 2)


@register("dataset", "by-chance")
class ByChance(Base):
    """Draws an order."""

    def split(self, domain, name):
        return Split(torch.rand(10, 1), torch.arange(10) % 2)


@register("dataset", "from-one")
class FromOne(Base):
    """Counts classes from 1."""

    def split(self, domain, name):
        return Split(torch.arange(10.0).unsqueeze(1), 1 + torch.arange(10) % 2)


@register("dataset", "writes")
class Writes(Base):
    """Leaves a file behind."""

    def split(self, domain, name):
        (self.root / "cache.bin").write_bytes(b"1")
        return super().split(domain, name)


@register("dataset", "any-folder")
class AnyFolder(Base):
    """Does not look at its folder."""


@register("dataset", "class-twice")
class ClassTwice(Base):
    """Has nothing to tell apart."""

    class_names = ("same", "same")
'''


def check(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["check", *arguments])


@pytest.mark.parametrize(
    ("name", "failing", "why"),
    [
        ("by-batch", "lazy", "sample 4 differs alone and in a batch"),
        ("by-chance", "same-again", "its split 'all' differs when it is read again"),
        ("from-one", "samples", "labels from 1 to 2; 2 classes are numbered from 0 to 1"),
        ("writes", "files", "is changed by reading it: write caches elsewhere"),
        ("any-folder", "another-folder", "an empty folder has the domains ['all'] and no problem"),
        ("class-twice", "declared", "class_names is ['same', 'same']: give one name or more"),
    ],
)
def test_a_broken_data_set_is_named(tmp_path: Path, name: str, failing: str, why: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    root = tmp_path / "root"
    root.mkdir()
    with registry.isolated():
        registry.add_plugin(file)
        done = check("--data", name, "--root", str(root), "--only", failing)
    assert done.exit_code == 1
    assert f"FAIL {failing}: " in done.stdout
    assert why in done.stdout


def test_a_root_is_asked_for_and_settings_are_given(tmp_path: Path) -> None:
    image_folder(tmp_path)
    done = check("--data", "image-folder", "--root", str(tmp_path), "--set", "size=16")
    assert done.exit_code == 0, done.stdout
    assert "image-folder: 7 checks passed" in done.stdout
    for option, value, said in (("--root", "here", "here"), ("--set", "size=16", "'size=16'")):
        told = str(check("tent", option, value).exception)
        assert told == f"check: {option} {said}: is for data sets; name one with --data"
    assert "name its folder with --root DIR" in str(check("--data", "image-folder").exception)
