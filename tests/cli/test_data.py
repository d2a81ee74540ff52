"""``bench data``: what can be read, whether a folder is one, and what is in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import registry
from bench.cli import app, main
from bench.testing import isolated_registry

TOY = Path(__file__).parents[1] / "plugins" / "toy_dataset.py"


def run(*given: str, code: int = 0) -> list[str]:
    done = CliRunner().invoke(app, ["data", *given])
    assert done.exit_code == code, done.output
    return done.stdout.splitlines()


def refused(given: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> str:
    monkeypatch.setattr(sys, "argv", ["bench", "data", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for d, domain in enumerate(("photo", "sketch")):
        for c, name in enumerate(("cat", "dog")):
            folder = tmp_path / "animals" / domain / name
            folder.mkdir(parents=True)
            for i in range(3 + c):
                Image.new("RGB", (9, 9), (i, d, c)).save(folder / f"{i}.png")
    return tmp_path / "animals"


def test_the_list_has_every_data_set_with_its_task() -> None:
    lines = run("list")
    assert [line.split()[0] for line in lines[1:]] == list(registry.entries("dataset"))
    assert next(line for line in lines if line.startswith("conllu")).split()[1] == (
        "token-classification"
    )
    assert run()[:-2] == lines


def test_a_good_folder_is_ok_with_its_digest(animals: Path) -> None:
    (line,) = run("check", "image-folder", "--root", str(animals))
    assert line.startswith(f"ok  image-folder in {animals}: 2 domains, 14 samples, 2 classes; dig")
    assert line.endswith(" of contents")


def test_each_wrong_file_is_a_line_and_the_exit_code_is_one(animals: Path) -> None:
    for bad in ("photo/cat/1.png", "sketch/dog/0.png"):
        (animals / bad).write_bytes(b"not an image")
    *wrong, last = run("check", "image-folder", "--root", str(animals), code=1)
    assert [line.partition(": ")[0] for line in wrong] == [
        f"wrong  {animals}/photo/cat/1.png", f"wrong  {animals}/sketch/dog/0.png"
    ]  # fmt: skip
    assert last == f"image-folder in {animals}: 2 things to correct"


def test_show_counts_and_draws(animals: Path, tmp_path: Path) -> None:
    out = tmp_path / "animals.png"
    lines = run(
        "show", "image-folder", "--root", str(animals), "--set", "size=16", "--out", str(out)
    )
    assert lines[0] == f"image-folder in {animals}: classification, a sample is 3 x 16 x 16"
    assert [line.split() for line in lines[2:4]] == [
        [domain, "all", "7", "cat", "3,", "dog", "4"] for domain in ("photo", "sketch")
    ]
    assert lines[4:] == [f"picture: {out}"]
    with Image.open(out) as picture:
        assert picture.width > picture.height > 200


def test_show_prints_texts(tmp_path: Path) -> None:
    (tmp_path / "books.csv").write_text("text,label\na fine book,good\na dull book,bad\n")
    lines = run("show", "text-table", "--root", str(tmp_path))
    assert lines[2].split() == ["books", "all", "2", "bad", "1,", "good", "1"]
    assert lines[4:] == ["books", "  good: a fine book", "  bad: a dull book"]


def test_a_plugin_of_one_file_adds_a_layout(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1 0\n9 1\n")
    with isolated_registry():
        plugin = ("--plugin", str(TOY))
        assert any(line.startswith("toy-numbers") for line in run("list", *plugin))
        (line,) = run("check", "toy-numbers", "--root", str(tmp_path), *plugin)
    assert line.startswith("ok  toy-numbers")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["check", "image-foldr"], "unknown dataset 'image-foldr': did you mean 'image-folder'"),
        (["check", "image-folder"], "data set 'image-folder': name its folder with --root DIR"),
        (["check", "image-folder", "--root", "nowhere"], "root nowhere is not there"),
        (
            ["check", "image-folder", "--root", ".", "--set", "sice=3"],
            "key 'sice': unknown; did you mean 'size'",
        ),
        (["check", "digits", "--set", "size"], "--set 'size': write KEY=VALUE, as size=64"),
    ],
)
def test_bad_input_is_one_line(
    given: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    assert said in refused(given, monkeypatch, capfd)


def test_a_picture_of_texts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    (tmp_path / "books.csv").write_text("text,label\na,good\nb,bad\n")
    given = ["show", "text-table", "--root", str(tmp_path), "--out", str(tmp_path / "x.png")]
    assert "are no images; leave it out" in refused(given, monkeypatch, capfd)
