"""Pieces of Markdown: tables, and what docstrings say about fields."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from bench.contracts.settings import bounds, choices, limits

if TYPE_CHECKING:
    import pydantic
    from pydantic.fields import FieldInfo

_LISTED = re.compile(r"^(\w+(?:, \w+)*) : (.*(?:\n {4,}.*)*)", re.M)
_INLINE = re.compile(r"(?:^|(?<=[.;:]\s)|(?<=\n\n))((?:``\w+``(?:, | and )?)+): ")


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None
) -> str:
    """A table; bars in cells are escaped, line breaks become spaces."""
    lines = [head, align or ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, row)) + " |" for row in lines)


def code_marks(text: str) -> str:
    """A docstring's double backticks as Markdown's single ones."""
    return text.replace("``", "`")


def field_notes(docstring: str | None, fields: Collection[str]) -> tuple[str, dict[str, str]]:
    """What a class's docstring says about its fields, and the rest of it.

    Read are entries of the forms ``name : text`` (indented continuation) and, in a paragraph,
    ````name````: ``text``. The rest is the docstring without them.
    """
    text = inspect.cleandoc(docstring or "")
    notes: dict[str, str] = {}

    def keep(names: Sequence[str], note: str) -> None:
        for name in names:
            notes[name] = code_marks(" ".join(note.split()).rstrip(".;"))

    def listed(match: re.Match[str]) -> str:
        names = match[1].split(", ")
        if not set(names) <= set(fields):
            return match[0]
        keep(names, match[2])
        return ""

    rest = []
    for paragraph in _LISTED.sub(listed, text).split("\n\n"):
        marks = [
            match
            for match in _INLINE.finditer(paragraph)
            if set(re.findall(r"\w+", match[1])) - {"and"} <= set(fields)
        ]
        end = len(paragraph)
        for match in reversed(marks):
            names = [name for name in re.findall(r"\w+", match[1]) if name != "and"]
            keep(names, paragraph[match.end() : end])
            end = match.start()
        rest.append(paragraph[: marks[0].start()] if marks else paragraph)
    return code_marks("\n\n".join(part.strip() for part in rest if part.strip())), notes


def settings_table(config: type[pydantic.BaseModel]) -> str:
    """The settings of a method: default, unit, what is allowed, what `bench tune` searches."""
    rows = [_setting(name, field) for name, field in config.model_fields.items()]
    return table(["setting", "default", "unit", "allowed", "searched"], rows)


def described_settings(config: type[pydantic.BaseModel]) -> str:
    """The settings of a stream, model or protocol, with what each one means."""
    rest, notes = described_fields(config)
    rows = [
        [f"`{name}`", default(field), allowed(field), notes.get(name, "–")]
        for name, field in config.model_fields.items()
        if not field.exclude  # known only to be refused with a hint
    ]
    return f"{rest}\n\n{table(['setting', 'default', 'allowed', 'meaning'], rows)}"


def described_fields(model: type[pydantic.BaseModel]) -> tuple[str, dict[str, str]]:
    """`field_notes` of a model, with those of its bases for the fields that they bring."""
    rest, notes = field_notes(model.__doc__, model.model_fields)
    for base in model.__mro__[1:]:
        notes = {**field_notes(base.__doc__, model.model_fields)[1], **notes}
    return rest, notes


def default(field: FieldInfo) -> str:
    """A field's default as YAML would give it, or that it is required."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return _text(list(value) if isinstance(value, tuple) else value)


def allowed(field: FieldInfo) -> str:
    """What values a field takes: all of them if they are few, else an interval or nothing."""
    values = choices(field.annotation)
    if values is not None:
        return ", ".join(map(_text, values))
    return interval(field) if limits(field) else "–"


def interval(field: FieldInfo) -> str:
    """As ``(0, 1]``: a round bracket excludes the bound."""
    found = limits(field)
    low, high = bounds(field)
    left = "-∞" if low is None else f"{low:g}"
    right = "∞" if high is None else f"{high:g}"
    return f"{'[' if 'ge' in found else '('}{left}, {right}{']' if 'le' in found else ')'}"


def _setting(name: str, field: FieldInfo) -> list[str]:
    extra: dict[str, Any] = (
        field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    )
    values = choices(field.annotation)
    accepted = interval(field) if values is None else ", ".join(map(_text, values))
    searched = "–"
    if "search" in extra:
        low, high = extra["search"]
        searched = f"{low:g} to {high:g}" + (", log" if extra["log"] else "")
    unit = str(extra.get("unit", "1"))
    return [f"`{name}`", _text(field.default), "–" if unit == "1" else unit, accepted, searched]


def _text(value: Any) -> str:
    """A setting's value as a suite file would give it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
