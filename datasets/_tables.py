"""Rows of delimited text and JSON, each with the place that it was read from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic

from bench import BenchError
from bench.errors import did_you_mean, shown

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".json")
"""Endings of the names of tables."""

SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "valid", "val": "val", "dev": "dev",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of published splits in small letters, and what a data set calls each."""


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{twice[0]!r} is there twice: name every class once")
    return names


ClassNames = Annotated[tuple[str, ...], pydantic.AfterValidator(_distinct)]
"""Labels in the order of their numbers."""


def split_name(given: str, place: str) -> str:
    """What a data set calls a published split; BenchError, naming the ``place``, for none."""
    if (name := SPLITS.get(given.lower())) is None:
        raise BenchError(
            f"{place}: split {given!r} is none of train, validation (val, valid, dev) and test: "
            "rename it, so that it is clear what is tested"
        )
    return name


@dataclass(frozen=True)
class Row:
    """A row and its place in a file, for errors."""

    values: dict[str, Any]
    place: str

    def text(self, column: str) -> str:
        """A column's text; BenchError if it is not there, empty or no text or number."""
        if column not in self.values:
            raise BenchError(
                f"{self.place}: has no column {column!r}; {did_you_mean(column, self.values)}"
            )
        value = self.values[column]
        if not isinstance(value, str | int | float) or not str(value).strip():
            raise BenchError(
                f"{self.place}: column {column!r} is {shown(value)}: give a text, or remove the row"
            )
        return str(value).strip()


def read_table(file: Path) -> list[Row]:
    """The rows of a file: delimited text with a line of titles, JSON lines, or JSON."""
    try:
        rows = list(_rows(file, read_text(file)))
    except csv.Error as error:
        raise BenchError(f"{file}: is no delimited text ({error}): correct it") from error
    if not rows:
        raise BenchError(f"{file}: has no rows: add some, or remove the file")
    return rows


def class_numbers(rows: Sequence[Row], column: str, classes: Sequence[str]) -> list[int]:
    """The class of each row; BenchError if its label is none of them."""
    numbers = {label: i for i, label in enumerate(classes)}
    found = []
    for row in rows:
        label = row.text(column)
        if label not in numbers:
            raise BenchError(
                f"{row.place}: label {shown(label)} is none of the classes {', '.join(classes)}: "
                "correct it, or name it in 'classes'"
            )
        found.append(numbers[label])
    return found


def read_text(file: Path) -> str:
    """A file's text; BenchError if it is not there, or not UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchError(f"{file}: is not UTF-8 text ({error}): save it as UTF-8") from error
    except OSError as error:
        raise BenchError(f"{file}: cannot be read: {error.strerror}") from error


def read_json(file: Path) -> Any:
    """An object or a list in a JSON file."""
    return _json(read_text(file), str(file))


def json_rows(file: Path) -> list[Row]:
    """The rows of a file that is JSON, or JSON lines whatever it is called."""
    text = read_text(file)
    head = text.lstrip()[:1]
    lines = text.splitlines() if head == "{" and "\n" in text.strip() else []
    if len(lines) > 1 and lines[0].rstrip().endswith("}"):
        places = [(line, f"{file}:{n}") for n, line in enumerate(lines, start=1) if line.strip()]
        rows = [_row(_json(line, place), place) for line, place in places]
    else:
        rows = list(_rows(file, text))
    if not rows:
        raise BenchError(f"{file}: has no rows: add some, or remove the file")
    return rows


def _rows(file: Path, text: str) -> Iterator[Row]:
    if file.suffix in DELIMITERS:
        reader = csv.DictReader(text.splitlines(keepends=True), delimiter=DELIMITERS[file.suffix])
        for values in reader:
            place = f"{file}:{reader.line_num}"
            if None in values or None in values.values():
                raise BenchError(
                    f"{place}: has {'more' if None in values else 'fewer'} fields than the "
                    f"{len(reader.fieldnames or ())} titles: quote fields with delimiters in them"
                )
            yield Row(values, place)
    elif file.suffix == ".jsonl":
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                yield _row(_json(line, f"{file}:{number}"), f"{file}:{number}")
    else:
        found = _json(text, str(file))
        named = found.items() if isinstance(found, dict) else enumerate(found)
        for key, values in named:
            yield _row(values, f"{file}: entry {key!r}")


def _row(values: Any, place: str) -> Row:
    if not isinstance(values, dict):
        raise BenchError(f"{place}: is {shown(values)}: give an object with named values")
    return Row(values, place)


def _json(text: str, place: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{place}: is not JSON ({error}): correct it") from error
    if not isinstance(found, dict | list):
        raise BenchError(f"{place}: is {shown(found)}: give objects with named values")
    return found
