"""Scenes of six cameras and a LiDAR in Arrow files: what is read of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import BenchError, DataSet, take
from bench.contracts.dataset import DataChoice
from bench.datasets.nuscenes_qa_mini import CAMERAS, COLUMNS, LIDAR
from bench.run.validity import build_stream

arrow = pytest.importorskip("pyarrow")
Build = Callable[..., DataSet]
NAMES = [name for row in CAMERAS for name in row]
NIGHT = "night_80dimgaussian7"


def rows(domain: str, split: str, n: int = 4) -> dict[str, list[Any]]:
    """Cameras of one grey each, 20 for each place, 1 for each row; a LiDAR that counts."""
    lidar = np.arange(5 * 32 * 2048, dtype=np.float32).reshape(5, 32, 2048)
    made: dict[str, list[Any]] = {
        "token": [f"{domain}-{i // 2}" for i in range(n)],
        "question": [f"is it {split} {i}?" for i in range(n)],
        "answer": [("yes", "no", "2", "car")[i % 4] for i in range(n)],
        LIDAR: [(lidar + i).tolist() for i in range(n)],
    }
    for place, name in enumerate(NAMES):
        made[name] = [np.full((6, 8, 3), 20 * place + i, np.uint8).tolist() for i in range(n)]
    return made


def write(folder: Path, content: dict[str, list[Any]]) -> None:
    folder.mkdir(parents=True)
    table = arrow.table(content)
    with arrow.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), table.schema) as file:
        file.write_table(table)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("nuqa")
    for domain in ("day", NIGHT):
        for split in ("train", "validation"):
            write(made / domain / split, rows(domain, split))
    return made


def test_cameras_lidar_question_and_answer_of_each_row(root: Path, data_set: Build) -> None:
    data = data_set("nuscenes-qa-mini", root, size=8, tokens=8)
    assert (list(data.domains()), list(data.splits("day"))) == (["day", NIGHT], ["train", "test"])
    assert data.class_names == ("2", "car", "no", "yes")
    split = data.split(NIGHT, "train")
    assert split.y.argmax(dim=1).tolist() == [3, 2, 0, 1]
    assert split.y.sum(dim=1).tolist() == [1] * 4
    x = take(split.x, torch.tensor([2]))
    assert x["image"].shape == (1, 3, 16, 24)
    for place in range(6):
        down, across = 8 * (place // 3), 8 * (place % 3)
        part = x["image"][0, :, down : down + 8, across : across + 8]
        torch.testing.assert_close(part, torch.full((3, 8, 8), (20 * place + 2) / 255))
    expected = torch.arange(5 * 32 * 2048).float().view(5, 32, 2048) + 2
    assert torch.equal(x["lidar"][0], expected)
    assert int(x["attention_mask"].sum()) == 6  # the first, four words, a mark
    assert len(set(split.x.sample_names())) == 4
    assert list(data.check()) == []


def test_a_stream_goes_from_day_to_night(root: Path) -> None:
    from bench import load

    kind = load("stream", "domain-shift")
    chosen = DataChoice(name="nuscenes-qa-mini", root=str(root), size=8)
    built = build_stream(kind(kind.Config(data=chosen, source="day"), 0))
    assert [domain.name for domain in built.domains] == [NIGHT]
    assert built.task.metric.name == "vqa-score"


def test_what_is_not_the_layout_is_named(root: Path, tmp_path: Path, data_set: Build) -> None:
    with pytest.raises(BenchError, match=r"has no Arrow files: this layout is ROOT/day/train"):
        data_set("nuscenes-qa-mini", tmp_path)
    content = rows("day", "train")
    for column in COLUMNS[1:3]:
        folder = tmp_path / column / "day" / "train"
        write(folder, {name: part for name, part in content.items() if name != column})
        (line,) = data_set("nuscenes-qa-mini", tmp_path / column).check()
        assert f"has no column '{column}': fetch it anew" in line
    ragged = {**content, NAMES[0]: [[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]] * 4}
    write(tmp_path / "ragged" / "day" / "train", ragged)
    lines = list(data_set("nuscenes-qa-mini", tmp_path / "ragged").check())
    assert "CAM_FRONT_LEFT has lists of different lengths" in lines[0]
    broken = tmp_path / "broken" / "day" / "train"
    broken.mkdir(parents=True)
    (broken / "data-00000-of-00001.arrow").write_bytes(b"no table")
    assert "is no Arrow stream" in next(
        iter(data_set("nuscenes-qa-mini", tmp_path / "broken").check())
    )
