"""Inputs from files where labels are kept in another process: the same samples, read there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from bench import BenchError, LazyInputs, load, take
from bench.contracts.model import inputs_digest
from bench.records.cell import Cell, Component
from bench.run.label_process import HiddenLabels, LabelProcess
from bench.study.build import build
from bench.testing import make_cell


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A cell of the embedded network on two domains of 40 small images."""
    for d, domain in enumerate(("a", "b")):
        for c, name in enumerate(("cat", "dog")):
            folder = tmp_path / domain / name
            folder.mkdir(parents=True)
            for i in range(20):
                Image.new("RGB", (9, 9), (9 * i, 50 * d, 50 * c)).save(folder / f"{i}.png")
    data = {"name": "image-folder", "root": str(tmp_path), "size": 16}
    config = load("stream", "domain-shift").Config(data=data)
    stream = Component(name="domain-shift", config=config.model_dump(mode="json"), code="")
    model = Component(name="digits-vit", config={"patch": 8, "width": 16, "depth": 1}, code="")
    return make_cell(stream=stream, model=model, seed=0)


def test_samples_are_those_that_this_process_would_read(cell: Cell) -> None:
    here = build("stream", cell.stream, 0).domain("b")
    with LabelProcess(cell, labelled=False) as process:
        stream = process.stream()
        domain = stream.domain("b")
        assert (stream.task, stream.classes) == ("classification", 2)
        for there, own in ((domain.adaptation, here.adaptation), (domain.test, here.test)):
            assert isinstance(there.x, LazyInputs)
            assert isinstance(there.y, HiddenLabels)
            chosen = torch.tensor([3, 0])
            assert torch.equal(take(there.x, chosen), take(own.x, chosen))
            assert torch.equal(take(there.x.subset(chosen), chosen[1:]), take(own.x, chosen[:1]))
            assert inputs_digest(there.x) == inputs_digest(own.x)
            assert there.x.nbytes == own.x.nbytes


def test_a_file_that_cannot_be_read_there_is_named_here(cell: Cell) -> None:
    with LabelProcess(cell, labelled=False) as process:
        test = process.stream().domain("b").test
        for file in Path(cell.stream.config["data"]["root"]).rglob("*.png"):
            file.write_bytes(b"gone")
        with pytest.raises(BenchError, match=r"\.png: cannot be read as an image"):
            take(test.x, torch.arange(len(test)))  # more than were read to check the stream
