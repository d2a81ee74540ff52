"""Tables of texts and labels: delimited text, JSON lines or JSON."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pydantic
import torch
from pydantic import Field

from bench import BenchError, Split, register
from bench.io.folder_files import files_below

from ._tables import SPLITS, SUFFIXES, ClassNames, Row, class_numbers, read_table
from ._texts import Text, TextConfig, TextData

ONE = "all"


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class TextTableConfig(TextConfig):
    """Which columns mean what.

    text : the column of the text, or several, joined
    label : the column of the class
    domain : the column of the domain; nothing where each file, or each folder of files, is one
    classes : the labels in the order of their numbers; by default all there are, sorted
    """

    text: Annotated[tuple[str, ...], pydantic.BeforeValidator(_several)] = Field(
        ("text",), min_length=1
    )
    label: str = "label"
    domain: str = ""
    classes: ClassNames = ()


@register("dataset", "text-table")
class TextTable(TextData):
    """Texts with labels in ROOT/DOMAIN.csv (.tsv, .jsonl, .json), or ROOT/DOMAIN/*.csv.

    Files called train, validation (val, valid, dev) or test are published splits of their folder's
    domain. A column may name the domain instead.
    """

    Config = TextTableConfig
    config: TextTableConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        tables = [f for f in files_below(self.root) if f.suffix in SUFFIXES]
        vocabulary = Path(config.vocabulary).resolve()  # it may lie beside them
        self._tables = [f for f in tables if f.resolve() != vocabulary]
        if not self._tables:
            raise BenchError(
                f"root {self.root} has no tables: this layout is ROOT/DOMAIN.csv or "
                f"ROOT/DOMAIN/*.csv, with {', '.join(SUFFIXES)}"
            )

    def domains(self) -> list[str]:
        return list(dict.fromkeys(domain for domain, _ in self._rows))

    def splits(self, domain: str) -> list[str]:
        return [split for d, split in self._rows if d == domain]

    def split(self, domain: str, name: str) -> Split:
        rows = self._rows[domain, name]
        labels = class_numbers(rows, self.config.label, self.class_names)
        texts = [Text.of(" ".join(map(row.text, self.config.text))) for row in rows]
        return self.made(texts, torch.tensor(labels, dtype=torch.int64))

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The labels in the order of their numbers."""
        if self.config.classes:
            return self.config.classes
        found = {row.text(self.config.label) for rows in self._rows.values() for row in rows}
        if len(found) < 2:
            raise BenchError(
                f"root {self.root}: all rows have the label {found.pop()!r} in column "
                f"{self.config.label!r}: name the column of the classes in 'label'"
            )
        if len(found) > 1000:
            raise BenchError(
                f"root {self.root}: column {self.config.label!r} has {len(found)} different "
                "labels: name the column of the classes in 'label'"
            )
        return tuple(sorted(found))

    def files(self) -> Any:
        return iter(self._tables)

    @cached_property
    def _rows(self) -> dict[tuple[str, str], list[Row]]:
        """The rows of each domain and split."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for file in self._tables:
            domain, split = self._place(file)
            for row in read_table(file):
                named = row.text(self.config.domain) if self.config.domain else domain
                found[named, split].append(row)
        return dict(found)

    def _place(self, file: Path) -> tuple[str, str]:
        """Domain and split of a file, by its name and its folder."""
        split = SPLITS.get(file.stem.lower(), "all")
        folders = file.relative_to(self.root).parts[:-1]
        if folders:
            return folders[0], split
        return (ONE if split != "all" else file.stem), split
