"""my-idea: what it reads of a small folder, and the contract that every data set keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bench import load, registry, take
from bench.conformance import check_component

# In the project's own folders this line is not needed.
registry.add_plugin(Path(__file__).with_name("my_idea.py"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two domains of four images, of a gray that grows."""
    for d, domain in enumerate(("day", "night")):
        (tmp_path / domain).mkdir()
        for i in range(4):
            name = f"{('cat', 'dog')[i % 2]}_{i}.png"
            Image.new("RGB", (9, 9), (20 * i + d,) * 3).save(tmp_path / domain / name)
    return tmp_path


def test_samples_and_classes(root: Path) -> None:
    """The class is the first part of a file's name."""
    data_class = load("dataset", "my-idea")
    data = data_class(data_class.Config(root=str(root)))
    split = data.split("night", "all")
    assert (data.class_names, split.y.tolist()) == (("cat", "dog"), [0, 0, 1, 1])
    first = take(split.x, torch.tensor([0]))
    assert first[0, :, 0, 0].tolist() == pytest.approx([1 / 255] * 3)


def test_the_contract(root: Path) -> None:
    """What 'bench check --data' checks."""
    results = check_component("dataset", "my-idea", settings={"root": str(root)})
    failed = [result.line for result in results if not result.passed]
    assert not failed, "\n".join(failed)
