"""``--data-root``: where relative paths of a suite lie, and what is said of those that do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.cli import main
from bench.records.store import Store
from bench.study.data_root import missing_paths, placed
from bench.study.plan import make_plan
from bench.study.selection import Selection
from bench.study.suite import load_suite

SUITE = """
name: rooted
description: from the studio to the street
stream:
  name: domain-shift
  data: {name: image-folder, root: photos, size: 16}
  source: studio
  targets: [street]
models:
  - {name: hf-images, folder: vit}
  - {name: timm, architecture: resnet18, weights: hub}
  - hf-images:other
  - {name: digits-vit, width: 32}
methods: [source-only]
seeds: 1
devices: orin-nano
"""


@pytest.fixture
def suite_file(tmp_path: Path) -> Path:
    path = tmp_path / "rooted.yaml"
    path.write_text(SUITE)
    return path


def _photos(folder: Path) -> Path:
    for domain in ("studio", "street"):
        for c in ("a", "b"):
            place = folder / "photos" / domain / c
            place.mkdir(parents=True)
            for i in range(6):
                pixels = np.full((16, 16, 3), 20 * i + (c == "b"), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def test_paths_of_data_and_models_lie_below_the_root(suite_file: Path, tmp_path: Path) -> None:
    suite, _ = load_suite(str(suite_file))
    made = placed(suite, tmp_path)
    assert made.stream.config["data"]["root"] == str(tmp_path / "photos")
    assert made.stream.config["source"] == "studio"  # a name, and no path
    first, second, third, fourth = made.all_models()
    assert first.config == {"folder": str(tmp_path / "vit")}
    assert second.config["weights"] == "hub"
    assert third.name == f"hf-images:{tmp_path / 'other'}"
    assert fourth == suite.models[3]
    assert made.model == first


def test_models_and_data_of_several_applications_lie_below_the_root_too(
    suite_file: Path, tmp_path: Path
) -> None:
    several = """stream:
  name: several-tasks
  streams:
    - {name: domain-shift, data: {name: image-folder, root: photos, size: 16}}
    - {name: domain-shift, data: digits}
model:
  name: several-models
  models: [{name: hf-images, folder: vit}, digits-vit, "hf-images:other"]
"""
    start, end = SUITE.index("stream:"), SUITE.index("methods:")
    suite_file.write_text(SUITE[:start] + several + SUITE[end:])
    suite, _ = load_suite(str(suite_file))
    made = placed(suite, tmp_path)
    first, second = made.stream.config["streams"]
    assert first["data"]["root"] == str(tmp_path / "photos")
    assert second["data"] == "digits"
    models = made.model.config["models"]
    assert models[0] == {"name": "hf-images", "folder": str(tmp_path / "vit")}
    assert models[1:] == ["digits-vit", f"hf-images:{tmp_path / 'other'}"]
    found = [line.partition(":")[0] for line in missing_paths(made)]
    assert found == [str(tmp_path / name) for name in ("vit", "other", "photos")]


def test_absolute_paths_stay(suite_file: Path, tmp_path: Path) -> None:
    suite_file.write_text(SUITE.replace("root: photos", "root: /elsewhere/photos"))
    suite, _ = load_suite(str(suite_file))
    assert placed(suite, tmp_path).stream.config["data"]["root"] == "/elsewhere/photos"


def test_only_roots_of_joined_data_lie_in_the_root_around_them(tmp_path: Path) -> None:
    (tmp_path / "all" / "here").mkdir(parents=True)
    (tmp_path / "tokenizer.json").touch()
    sets = f"[{{name: text-table, root: here, vocabulary: {tmp_path}/tokenizer.json}}]"
    path = tmp_path / "rooted.yaml"
    joined = f"{{name: several, root: {tmp_path}/all, sets: {sets}}}"
    models = SUITE[SUITE.index("models:") : SUITE.index("methods:")]
    text = SUITE.replace(models, "model: small-classifier\n")
    path.write_text(text.replace("{name: image-folder, root: photos, size: 16}", joined))
    suite, _ = load_suite(str(path))
    assert missing_paths(suite) == []
    path.write_text(
        path.read_text()
        .replace(f"{tmp_path}/all", "all")
        .replace(f"{tmp_path}/tokenizer.json", "tokenizer.json")
    )
    suite = placed(load_suite(str(path))[0], tmp_path)
    (inner,) = suite.stream.config["data"]["sets"]
    assert inner["root"] == str(tmp_path / "all" / "here")
    assert inner["vocabulary"] == str(tmp_path / "tokenizer.json")
    assert missing_paths(suite) == []


def test_each_missing_path_is_told_with_what_it_is_for(suite_file: Path, tmp_path: Path) -> None:
    suite, _ = load_suite(str(suite_file))
    found = missing_paths(placed(suite, tmp_path))
    assert [line.partition(":")[0] for line in found] == [
        str(tmp_path / name) for name in ("vit", "other", "photos")
    ]
    assert "of data set image-folder. Images in folders ROOT/DOMAIN/CLASS" in found[2]
    assert "of model hf-images" in found[0]


def refused(given: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> tuple[str, str]:
    """What a command prints that ends with code 2: on stdout, and the one line of the error."""
    monkeypatch.setattr(sys, "argv", ["bench", *given])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    return said.out, line


def test_plan_lists_what_is_missing_and_run_names_the_cure(
    suite_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    options = ["--suite", str(suite_file), "--data-root", str(tmp_path)]
    told, line = refused(["plan", *options], monkeypatch, capfd)
    assert told.startswith("not there:\n")
    assert "models 4, variants 1, seeds 1, devices 1" in told
    assert "3 paths are not there; name the folder that they lie in with --data-root" in line
    _, line = refused(["run", *options], monkeypatch, capfd)
    assert "and 2 more (see 'bench plan'); name the folder" in line
    options[-1] = str(tmp_path / "nowhere")
    _, line = refused(["plan", *options], monkeypatch, capfd)
    assert line.endswith("nowhere: is no folder; name the one with the data in it")


def test_where_the_data_lie_changes_no_identity(tmp_path: Path) -> None:
    models = SUITE[SUITE.index("models:") : SUITE.index("methods:")]
    path = tmp_path / "rooted.yaml"
    path.write_text(SUITE.replace(models, "model: {name: digits-vit, width: 32}\n"))
    cells = []
    for name in ("here", "there"):
        root = _photos(tmp_path / name)
        suite, _ = Selection(suite=str(path), data_root=root).choose()
        assert missing_paths(suite) == []
        cells.append(make_plan(suite, path, Store(tmp_path / "store")).cells)
    assert [c.identity for c in cells[0]] == [c.identity for c in cells[1]]
