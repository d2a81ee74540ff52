"""Scenes of six cameras and a LiDAR in Arrow files: what is read of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from published_layouts import arrow_file, nuscenes_qa_mini, scenes

from bench import BenchError, DataSet, take
from bench.contracts.dataset import DataChoice
from bench.datasets.nuscenes_qa_mini import COLUMNS
from bench.run.validity import build_stream

pytest.importorskip("pyarrow")
Build = Callable[..., DataSet]
NIGHT = "night_80dimgaussian7"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("nuqa")
    nuscenes_qa_mini(made)
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
    content = scenes("day", "train")
    for column in COLUMNS[1:3]:
        folder = tmp_path / column / "day" / "train"
        arrow_file(folder, {name: part for name, part in content.items() if name != column})
        (line,) = data_set("nuscenes-qa-mini", tmp_path / column).check()
        assert f"has no column '{column}': fetch it anew" in line
    ragged = {**content, "CAM_FRONT_LEFT": [[[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]]] * 4}
    arrow_file(tmp_path / "ragged" / "day" / "train", ragged)
    lines = list(data_set("nuscenes-qa-mini", tmp_path / "ragged").check())
    assert "CAM_FRONT_LEFT has lists of different lengths" in lines[0]
    broken = tmp_path / "broken" / "day" / "train"
    broken.mkdir(parents=True)
    (broken / "data-00000-of-00001.arrow").write_bytes(b"no table")
    assert "is no Arrow stream" in next(
        iter(data_set("nuscenes-qa-mini", tmp_path / "broken").check())
    )
