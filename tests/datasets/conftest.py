"""Tiny data sets made in a test, and the real ones of a folder that not every machine has."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import DataSet, load

ROOT = Path(__file__).resolve().parents[2]
REAL_DATA = Path(os.environ.get("BENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
"""Archives of real data sets, which do not ship: tests that read them skip without."""


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an unpacked archive, or a file, by name; the test skips where it is absent."""
    unpacked: dict[str, Path] = {}

    def find(name: str) -> Path:
        file = REAL_DATA / name
        if not file.exists():
            pytest.skip(f"{file} is not there: BENCH_TEST_DATA names the folder of real data sets")
        if file.suffix != ".zip":
            return file
        if name not in unpacked:
            unpacked[name] = tmp_path_factory.mktemp(file.stem)
            with zipfile.ZipFile(file) as archive:
                archive.extractall(unpacked[name])
        return unpacked[name]

    return find


@pytest.fixture
def data_set() -> Callable[..., DataSet]:
    """A registered data set by its name and settings."""

    def build(name: str, root: Path, **settings: object) -> DataSet:
        data_class = load("dataset", name)
        made: DataSet = data_class(data_class.Config(root=str(root), **settings))
        return made

    return build


def save_image(file: Path, value: int | Sequence[int], size: tuple[int, int] = (10, 12)) -> None:
    """A color image of one color, of ``size`` (height, width)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.broadcast_to(np.asarray(value, dtype=np.uint8), (*size, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(file)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """ROOT/DOMAIN/CLASS: domains ``near`` and ``far``, each with 10 cats and 10 dogs.

    The images of a domain differ from each other and between the domains.
    """
    for d, domain in enumerate(("near", "far")):
        for c, name in enumerate(("cat", "dog")):
            for i in range(10):
                color = (20 * i + 2 * c, 100 * d, 40 * c)
                save_image(tmp_path / "images" / domain / name / f"{i}.png", color)
    return tmp_path / "images"
