"""Settings that name files: their content is the identity, not their path."""

from __future__ import annotations

import os
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


class Files(pydantic.BaseModel):
    file: pydantic.FilePath | None = None
    folder: pydantic.DirectoryPath | None = None
    path: Path = Path()
    text: str = "resnet18.a1"
    several: list[Path] = []
    nested: dict[str, list[str]] = {}
    inner: Config = Config()


def test_files_that_no_type_announces_count_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for place in "ab":
        (tmp_path / place / "knobs.json").write_text("1")
    for name in ("file", "path", "text", "several", "nested", "inner", "folder"):

        def given(place: str, name: str = name) -> Files:
            file = tmp_path / place / "knobs.json"
            values = {
                "several": [file],
                "nested": {"a": ["x", str(file)]},
                "folder": file.parent,
                "inner": {"name": str(file)},
            }
            return Files.model_validate(
                {name: values.get(name, file if name != "text" else str(file))}
            )

        a, b = file_digests(given("a")), file_digests(given("b"))
        assert list(a) == [name]
        assert a == b, name
        (tmp_path / "b" / "knobs.json").write_text("2")
        assert file_digests(given("b")) != a, name
        (tmp_path / "b" / "knobs.json").write_text("1")


def test_texts_that_name_no_file_and_paths_to_nothing_are_values(tmp_path: Path) -> None:
    (tmp_path / "mean").write_text("a file of that name")
    there = Files(path=tmp_path / "nothing", text="mean", several=[Path("/nowhere/a.pt")])
    assert file_digests(there) == {}
    assert file_digests(Files(text="x" * 5000 + "/a")) == {}
    assert file_digests(Files(text="\0/a.b")) == {}


def test_what_is_no_file_and_no_folder_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BenchError, match="pipe is neither a file nor a folder"):
        file_digests(Config(weights=str(tmp_path / "pipe")))
    assert file_digests(Files(path=tmp_path / "pipe")) == {}


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
