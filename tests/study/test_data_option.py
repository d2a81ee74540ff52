"""``--data``: a suite's methods on a data set of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench import BenchError
from bench.study.selection import Selection


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for d, domain in enumerate(("a", "b", "c")):
        for c, name in enumerate(("cat", "dog")):
            folder = tmp_path / "animals" / domain / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (9, 9), (i, d, c)).save(folder / f"{i}.png")
    return tmp_path / "animals"


def plan(tmp_path: Path, **changes: Any) -> Any:
    return Selection(suite="smoke", store=tmp_path / "store", **changes).plan()[0]


def test_the_stream_is_domain_shift_over_the_data(animals: Path, tmp_path: Path) -> None:
    made = plan(tmp_path, data="image-folder", root=animals, source=("b",), targets=("c", "a"))
    stream = made.cells[0].stream
    assert stream.name == "domain-shift"
    assert stream.config["data"] == {"name": "image-folder", "root": str(animals), "size": [64, 64]}
    assert (stream.config["source"], stream.config["targets"]) == (["b"], ["c", "a"])
    assert made.tuned is None
    assert len(made.cells) == len(plan(tmp_path).cells)


def test_cells_are_known_by_the_content_of_the_folder(animals: Path, tmp_path: Path) -> None:
    def identities(root: Path) -> list[str]:
        made = plan(tmp_path, data="image-folder", root=root)
        return [cell.identity for cell in made.cells]

    first = identities(animals)
    moved = animals.rename(tmp_path / "moved")
    assert identities(moved) == first
    Image.new("RGB", (9, 9), (99, 0, 0)).save(moved / "a" / "cat" / "0.png")
    assert not set(identities(moved)) & set(first)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"root": Path("x")}, "--root, --source and --targets: name the data set too, with --data"),
        ({"data": "image-foldr"}, "unknown dataset 'image-foldr': did you mean 'image-folder'"),
        ({"data": "image-folder", "root": Path("nowhere")}, "root nowhere is not there"),
        ({"data": "image-folder"}, "data set 'image-folder': key 'root': missing; add it"),
    ],
)
def test_what_is_not_there_is_said_before_a_run(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        plan(tmp_path, **changes)


def test_an_unknown_domain_is_said_before_a_run(animals: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"targets: image-folder in .* has no domain 'd'"):
        plan(tmp_path, data="image-folder", root=animals, targets=("d",))
