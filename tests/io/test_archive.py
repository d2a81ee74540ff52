"""Archives of data: unpacked once into the cache, whole or not at all."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench.contracts.dataset import data_set
from bench.errors import BenchError
from bench.io.archive import is_archive, unpacked

FILES = {"photo/cat/1.txt": "a", "photo/dog/1.txt": "b", "sketch/cat/1.txt": "c"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def archived(path: Path, files: dict[str, str]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for name, text in files.items():
                made.writestr(name, text)
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def content(folder: Path) -> dict[str, str]:
    files = (f for f in sorted(folder.rglob("*")) if f.is_file())
    return {f.relative_to(folder).as_posix(): f.read_text() for f in files}


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_an_archive_is_unpacked_once_and_anew_when_it_changes(
    tmp_path: Path, cache: Path, name: str
) -> None:
    archive = archived(tmp_path / name, FILES)
    assert is_archive(archive)
    folder = unpacked(archive)
    assert content(folder) == FILES
    assert cache in folder.parents
    marked = folder / "photo/cat/1.txt"
    marked.write_text("kept")
    assert unpacked(archive) == folder
    assert marked.read_text() == "kept"
    archived(archive, FILES | {"sketch/dog/1.txt": "d"})
    os.utime(archive, ns=(1, 1))
    assert content(unpacked(archive)) == FILES | {"sketch/dog/1.txt": "d"}


def test_the_only_folder_in_an_archive_is_the_root(tmp_path: Path) -> None:
    inner = {f"pacs/{name}": text for name, text in FILES.items()} | {"__MACOSX/pacs/x": ""}
    assert content(unpacked(archived(tmp_path / "download.zip", inner))) == FILES


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_a_cut_archive_is_named_and_leaves_nothing(tmp_path: Path, cache: Path, name: str) -> None:
    archive = archived(tmp_path / name, FILES)
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(BenchError, match=rf"root .*{name}: cannot be unpacked .*download it again"):
        unpacked(archive)
    assert [f for f in (cache / "unpacked").iterdir() if f.suffix != ".lock"] == []


def test_an_encrypted_archive_is_one_line(tmp_path: Path) -> None:
    archive = archived(tmp_path / "data.zip", {"a.txt": "a"})
    content = bytearray(archive.read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(BenchError, match=r"cannot be unpacked .*encrypted"):
        unpacked(archive)


def test_a_file_that_would_leave_the_folder_is_not_written(tmp_path: Path) -> None:
    outside = {"../outside.txt": "x", **FILES}
    with pytest.raises(BenchError, match="cannot be unpacked"):
        unpacked(archived(tmp_path / "bad.tar.gz", outside))
    folder = unpacked(archived(tmp_path / "bad.zip", outside))  # zipfile drops the dots
    assert list(tmp_path.rglob("outside.txt")) == [folder / "outside.txt"]


def test_a_data_set_reads_an_archive_as_its_folder(tmp_path: Path) -> None:
    rows = {"reviews/books.csv": "text,label\ngood,1\nbad,0\n"}
    archive = archived(tmp_path / "reviews.zip", rows)
    settings = {"text": "text", "label": "label"}
    packed = data_set("text-table", {"root": str(archive), **settings})
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "books.csv").write_text(rows["reviews/books.csv"])
    plain = data_set("text-table", {"root": str(folder), **settings})
    assert packed.domains() == plain.domains() == ["books"]
    assert packed.digest() == plain.digest()
