"""Data sets of the Hugging Face library ``datasets``, saved in a folder by ``save_to_disk``."""

from __future__ import annotations

import hashlib
import importlib
import io
from collections.abc import Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, DataSet, DataSetConfig, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType
from bench.errors import did_you_mean, shown

from ._images import ImageData, Size, decode
from ._tables import split_name
from ._texts import Text, TextConfig, TextData

ONE = "all"
MARKS = ("dataset_dict.json", "dataset_info.json")
"""Files of a folder that was saved: of several splits, and of one."""


class _SavedConfig(DataSetConfig):
    label: str = Field("label", min_length=1)
    domain: str = ""


class SavedImagesConfig(_SavedConfig):
    """``root``: the folder that was saved, or one with such a folder for each domain.

    image, label : the columns of the image and of its class
    domain : the column of its domain, where a column names it
    size : height and width in pixels, or one for both
    """

    image: str = "image"
    size: Size = (64, 64)


class SavedTextsConfig(TextConfig, _SavedConfig):
    """How texts become numbers, see `TextConfig`, and which columns mean what.

    root : the folder that was saved, or one with such a folder for each domain
    text, label : the columns of the text and of its class
    domain : the column of its domain, where a column names it
    """

    text: str = "text"


class _Saved(DataSet):
    """Splits of saved folders, by domain and name."""

    config: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if find_spec("datasets") is None:
            raise BenchError(
                f"root {self.root}: saved data sets are read by the library datasets: "
                "pip install datasets"
            )
        folders = {ONE: self.root} if _is_saved(self.root) else {}
        if not folders:
            inner = sorted(each for each in self.root.iterdir() if _is_saved(each))
            folders = {each.name: each for each in inner}
        if not folders:
            raise BenchError(
                f"root {self.root} has no {MARKS[0]} and no {MARKS[1]}: this layout is what "
                "save_to_disk of the library datasets writes"
            )
        self._folders = folders

    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self._tables))

    def splits(self, domain: str) -> list[str]:
        return [split for d, split in self._tables if d == domain]

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """As the column's type names them, else all values there are, sorted."""
        return tuple(self._classes.values())

    def labels(self, domain: str, name: str) -> Tensor:
        """The classes of a split, int64 of shape (n,)."""
        table, label = self._tables[domain, name], self.config.label
        number_of = {text: number for number, text in enumerate(self.class_names)}
        own = _names(table, label)  # in this table's order
        named = self._classes if own is None else dict(enumerate(own))
        numbers = {value: number_of[text] for value, text in named.items()}
        values = table[label][:]
        for row, value in enumerate(values):
            if value not in numbers:
                raise BenchError(
                    f"{self.place(domain)}: split {name!r}, row {row}: label {shown(value)} is "
                    f"none of the classes {', '.join(self.class_names)}: correct it, or remove the "
                    "row"
                )
        return torch.tensor([numbers[value] for value in values], dtype=torch.int64)

    def place(self, domain: str) -> Path:
        """The folder that a domain was read from."""
        return self._folders.get(domain, self.root)

    @cached_property
    def _classes(self) -> dict[Any, str]:
        """The name of each value of the label, in the order of their numbers.

        Of a type with names the numbers are those of the first table.
        """
        label = self.config.label
        named = {place: _names(table, label) for place, table in self._tables.items()}
        (first, names), *others = named.items()
        for place, other in others:
            if set(other or ()) != set(names or ()):
                raise BenchError(
                    f"{self._shown(place)}: column {label!r} has {_said(other)}, and in "
                    f"{self._shown(first)} {_said(names)}: save all with the same names of classes"
                )
        if names:
            return dict(enumerate(names))
        found: dict[Any, tuple[str, str]] = {}
        for place, table in self._tables.items():
            if not isinstance(table.features[label], _library().Value):
                raise BenchError(
                    f"{self._shown(place)}: column {label!r} is of type {table.features[label]}, "
                    "and a class is one text or number: name the column of the classes in 'label'"
                )
            found |= dict.fromkeys(set(table.unique(label)) - {None} - set(found), place)
        if not 2 <= len(found) <= 10_000:
            raise BenchError(
                f"root {self.root}: column {label!r} has {len(found)} different labels: name the "
                "column of the classes in 'label'"
            )
        kinds = {type(value).__name__: place for value, place in found.items()}
        if len(kinds) > 1:
            where = ", ".join(f"{kind} in {self._shown(place)}" for kind, place in kinds.items())
            raise BenchError(f"column {label!r} has labels {where}: save them as one type")
        return {value: str(value) for value in sorted(found)}

    def _shown(self, place: tuple[str, str]) -> str:
        return f"{self.place(place[0])}: split {place[1]!r}"

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Any]:
        """The table of each domain and split."""
        library = _library()
        found: dict[tuple[str, str], Any] = {}
        for domain, folder in self._folders.items():
            try:
                loaded = library.load_from_disk(str(folder))
            except Exception as error:  # the library raises plain ones
                raise BenchError(
                    f"{folder}: cannot be read by the library datasets ({error}): save it anew"
                ) from error
            named = dict(loaded) if isinstance(loaded, library.DatasetDict) else {"all": loaded}
            for given, table in named.items():
                split = given if given == "all" else split_name(given, str(folder))
                for column in self._columns():
                    if column not in table.column_names:
                        raise BenchError(
                            f"{folder}: split {split!r} has no column {column!r}; "
                            f"{did_you_mean(column, table.column_names)}"
                        )
                for each, part in self._by_domain(domain, table):
                    if (each, split) in found:
                        raise BenchError(
                            f"{folder}: domain {each!r} has two splits {split!r}, with another "
                            "folder or another spelling: save both as one"
                        )
                    found[each, split] = part
        return found

    def _by_domain(self, folder: str, table: Any) -> Iterator[tuple[str, Any]]:
        """The domains of a table of a folder, each with its rows."""
        if not self.config.domain:
            yield folder, table
            return
        of_row = np.array([str(value) for value in table[self.config.domain][:]])
        for each in sorted(set(of_row.tolist())):
            yield each, table.select(np.flatnonzero(of_row == each))

    def _columns(self) -> list[str]:
        return [self.config.label, *([self.config.domain] if self.config.domain else [])]


@register("dataset", "saved-images")
class SavedImages(_Saved, ImageData):
    """Labelled images in folders that ``save_to_disk`` of the library datasets wrote.

    ROOT is such a folder, or has one for each domain. Its splits are kept. Images are read when a
    batch needs them and resized to ``size``.
    """

    Config = SavedImagesConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)

    def split(self, domain: str, name: str) -> Split:
        image_type = _library().Image
        table, column = self._tables[domain, name], self.config.image
        if not isinstance(table.features[column], image_type):
            raise BenchError(
                f"{self.place(domain)}: column {column!r} is of type "
                f"{table.features[column]}, and no image: name the images' column in 'image'"
            )
        raw = table.select_columns([column]).cast_column(column, image_type(decode=False))
        where = f"{self.place(domain)}: split {name!r}"
        return Split(_SavedRows(raw, column, self.config.size, where), self.labels(domain, name))

    def _columns(self) -> list[str]:
        return [self.config.image, *super()._columns()]


@register("dataset", "saved-texts")
class SavedTexts(_Saved, TextData):
    """Labelled texts in folders that ``save_to_disk`` of the library datasets wrote.

    ROOT is such a folder, or has one for each domain. Its splits are kept.
    """

    Config = SavedTextsConfig

    def split(self, domain: str, name: str) -> Split:
        texts = self._tables[domain, name][self.config.text][:]
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise BenchError(
                    f"{self.place(domain)}: split {name!r}, row {row}: column "
                    f"{self.config.text!r} is {shown(text)}: give a text, or remove the row"
                )
        return self.made([Text.of(text) for text in texts], self.labels(domain, name))

    def _columns(self) -> list[str]:
        return [self.config.text, *super()._columns()]


class _SavedRows(LazyInputs):
    """Images in rows of a saved table, as float32 of shape (n, 3, height, width) in [0, 1]."""

    def __init__(self, table: Any, column: str, size: tuple[int, int], where: str) -> None:
        super().__init__(torch.arange(len(table)))
        self._table, self._column, self._size, self._where = table, column, size, where
        self._names: list[str] = []

    def read(self, positions: Tensor) -> Inputs:
        images = [decode(self._source(i), self._size, self._place(i)) for i in positions.tolist()]
        return torch.stack(images).float() / 255

    def names(self, positions: Tensor) -> list[str]:
        """Digests of the images as they are stored."""
        if not self._names:
            self._names += [_digest(self._source(i)) for i in range(len(self._table))]
        return [self._names[i] for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        return {"": ((3, *self._size), torch.float32)}

    def _source(self, row: int) -> Any:
        """The file of an image, or its bytes."""
        found = self._table[row][self._column]
        if found is None or (found["bytes"] is None and not found["path"]):
            raise BenchError(f"{self._place(row)}: has no image: remove the row")
        return Path(found["path"]) if found["bytes"] is None else io.BytesIO(found["bytes"])

    def _place(self, row: int) -> str:
        return f"{self._where}, row {row}"


def _names(table: Any, label: str) -> list[str] | None:
    """Names of classes that a column's type has, in the order of their numbers."""
    return getattr(table.features[label], "names", None)


def _said(names: list[str] | None) -> str:
    return f"the names {shown(', '.join(names))}" if names else "no names of classes"


def _library() -> Any:
    """The library datasets; BenchError if a folder of this name hides it."""
    library = importlib.import_module("datasets")
    if not hasattr(library, "load_from_disk"):
        raise BenchError(
            f"the library datasets is hidden by {next(iter(library.__path__))}: run in a folder "
            "without a folder called datasets"
        )
    return library


def _digest(source: Any) -> str:
    data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
    return hashlib.sha256(data).hexdigest()


def _is_saved(folder: Path) -> bool:
    return folder.is_dir() and any((folder / mark).is_file() for mark in MARKS)
