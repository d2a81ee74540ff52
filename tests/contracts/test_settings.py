"""Settings that name files: their content is the identity, not their path."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from bench.contracts.settings import LocalPath, file_digests
from bench.errors import BenchError
from bench.records.cell import Cell, Component


class Config(pydantic.BaseModel):
    weights: LocalPath = ""
    name: str = "weights.pt"


def test_equal_content_under_another_path_is_equal(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).write_bytes(b"content")
    a, b = (file_digests(Config(weights=str(tmp_path / n))) for n in ("a.pt", "b.pt"))
    assert a == b
    assert list(a) == ["weights"]


def test_other_content_under_the_same_path_is_another(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"content")
    before = file_digests(Config(weights=str(file)))
    file.write_bytes(b"contents")
    assert file_digests(Config(weights=str(file))) != before


def test_a_folder_counts_with_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"1")
    before = file_digests(Config(weights=str(tmp_path)))
    (tmp_path / "deep" / "a").rename(tmp_path / "deep" / "b")
    assert file_digests(Config(weights=str(tmp_path))) != before


def test_no_file_is_no_digest_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert file_digests(Config()) == {}
    with pytest.raises(
        BenchError, match=r"setting 'weights': .*nothing\.pt cannot be read: No such"
    ):
        file_digests(Config(weights=str(tmp_path / "nothing.pt")))


def test_a_cells_identity_holds_content_and_no_path(make_cell: type[Cell]) -> None:
    def cell(path: str, digest: str) -> Cell:
        model = Component(name="m", config={"weights": path}, code="c", files={"weights": digest})
        return make_cell(model=model)

    assert cell("/a.pt", "1").identity == cell("/b.pt", "1").identity
    assert cell("/a.pt", "1").identity != cell("/a.pt", "2").identity
    assert cell("/a.pt", "1").training_key == cell("/b.pt", "1").training_key


def test_the_path_of_a_device_profile_is_no_identity_but_its_content_is(
    make_cell: type[Cell],
) -> None:
    one, other = make_cell(device="/here/my.yaml"), make_cell(device="/there/my.yaml")
    assert one.identity == other.identity
    assert one.device_title == "my"
    assert make_cell(device="/here/my.yaml", device_digest="2").identity != one.identity
    assert make_cell(device="/here/my@15w.yaml").device_title == "my@15w"
    assert make_cell(device="my.yaml@15w").device_title == "my@15w"
