"""Images in a folder, and a table that says of each its class, domain and split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bench import BenchError, DataSetConfig, Split, register
from bench.errors import shown

from ._images import ImageData, ImageFiles, Size
from ._tables import SUFFIXES, ClassNames, Row, class_numbers, read_table, split_name

ONE, MOST_CLASSES = "all", 10_000


class ImageTableConfig(DataSetConfig):
    """``root``: folder of the table and the images.

    table : name of the table in it, by default the only one that lies there
    file, label : the columns of the image's path, from the root, and of its class
    domain : the column of its domain; by default ``domain``, where the table has one
    split : the column of its published split, ``train``, ``validation`` or ``test``; by default
        ``split``, where the table has one
    classes : the labels in the order of their numbers; by default all there are, sorted
    size : height and width in pixels, or one for both
    """

    table: str = ""
    file: str = "file"
    label: str = "label"
    domain: str = ""
    split: str = ""
    classes: ClassNames = ()
    size: Size = (64, 64)


@register("dataset", "image-table")
class ImageTable(ImageData):
    """Images in ROOT, and ROOT/NAME.csv (.tsv, .jsonl, .json) with their file, label and domain.

    As metadata.csv of published sets: a row for each image, whose path is relative to the root.
    Labels may be names or numbers; images are resized to ``size``, whatever their shape.
    """

    Config = ImageTableConfig
    config: ImageTableConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.input_shape = (3, *config.size)
        self._table = self._find_table()

    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self._rows))

    def splits(self, domain: str) -> list[str]:
        return [split for d, split in self._rows if d == domain]

    def split(self, domain: str, name: str) -> Split:
        rows = self._rows[domain, name]
        labels = class_numbers(rows, self.config.label, self.class_names)
        images = ImageFiles([self._file(row) for row in rows], self.config.size)
        return Split(images, torch.tensor(labels, dtype=torch.int64))

    def files(self) -> Iterator[Path]:
        yield self._table
        yield from dict.fromkeys(self._file(row) for rows in self._rows.values() for row in rows)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The labels in the order of their numbers: numbers by their value, names by alphabet."""
        if self.config.classes:
            return self.config.classes
        found = {row.text(self.config.label) for rows in self._rows.values() for row in rows}
        if not 2 <= len(found) <= MOST_CLASSES:
            raise BenchError(
                f"{self._table}: column {self.config.label!r} has {len(found)} different labels: "
                "name the column of the classes in 'label'"
            )
        if not all(label.isdecimal() for label in found):
            return tuple(sorted(found))
        spelled: dict[int, str] = {}
        for label in sorted(found):
            other = spelled.setdefault(int(label), label)
            if other != label:
                raise BenchError(
                    f"{self._table}: labels {other!r} and {label!r} are one number: write it one "
                    "way, or give 'classes' if they are two"
                )
        return tuple(spelled[number] for number in sorted(spelled))

    def _find_table(self) -> Path:
        if self.config.table:
            table = self.root / self.config.table
            if not table.is_file():
                raise BenchError(f"{table}: is not there: name the table of {self.root} in 'table'")
            return table
        found = sorted(f for f in self.root.iterdir() if f.is_file() and f.suffix in SUFFIXES)
        if len(found) != 1:
            said = ", ".join(f.name for f in found) or "no table"
            raise BenchError(
                f"root {self.root} has {said}, and this layout is ROOT/NAME.csv with the columns "
                "file, label and domain: name the table in 'table'"
            )
        return found[0]

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[Row]]:
        """The rows of each domain and split."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        rows = read_table(self._table)
        domain = self.config.domain or self._where_there(rows[0], "domain")
        split = self.config.split or self._where_there(rows[0], "split")
        for row in rows:
            name = split_name(row.text(split), row.place) if split else "all"
            found[row.text(domain) if domain else ONE, name].append(row)
        return dict(found)

    @staticmethod
    def _where_there(row: Row, column: str) -> str:
        return column if column in row.values else ""

    def _file(self, row: Row) -> Path:
        named = row.text(self.config.file)
        file = self.root / named
        if ".." in Path(named).parts or Path(named).is_absolute():
            raise BenchError(f"{row.place}: file {shown(named)}: give its path from {self.root}")
        if not file.is_file():
            raise BenchError(
                f"{row.place}: file {shown(named)} is not in {self.root}: add it, or remove the row"
            )
        return file
