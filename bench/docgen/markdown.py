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

    def keep(match: re.Match[str], note: str) -> bool:
        names = set(re.findall(r"\w+", match[1])) - {"and"}
        if known := names <= set(fields):
            notes.update(dict.fromkeys(names, code_marks(" ".join(note.split()).rstrip(".;"))))
        return known

    rest = []
    for paragraph in _LISTED.sub(lambda m: "" if keep(m, m[2]) else m[0], text).split("\n\n"):
        end = len(paragraph)
        for match in reversed(list(_INLINE.finditer(paragraph))):
            if keep(match, paragraph[match.end() : end]):
                end = match.start()
        rest.append(paragraph[:end])
    return code_marks("\n\n".join(part.strip() for part in rest if part.strip())), notes


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
    import pydantic

    value = field.get_default(call_default_factory=True)
    if isinstance(value, pydantic.BaseModel):  # a component with settings of its own
        value = value.model_dump(mode="json")
    return _text(list(value) if isinstance(value, tuple) else value)


def allowed(field: FieldInfo) -> str:
    """A field's values if they are few, else their interval: a round bracket leaves a bound out."""
    values = choices(field.annotation)
    if values is not None:
        return ", ".join(map(_text, values))
    if not (found := limits(field)):
        return "–"
    low, high = (given if given is None else f"{given:g}" for given in bounds(field))
    left, right = "[" if "ge" in found else "(", "]" if "le" in found else ")"
    return f"{left}{low or '-∞'}, {high or '∞'}{right}"


def settings_table(config: type[pydantic.BaseModel]) -> str:
    """The settings of a method: default, unit, what is allowed, what `bench tune` searches."""
    rows = [_setting(name, field) for name, field in config.model_fields.items()]
    return table(["setting", "default", "unit", "allowed", "searched"], rows)


def _setting(name: str, field: FieldInfo) -> list[str]:
    extra: Any = field.json_schema_extra or {}
    searched = "–"
    if "search" in extra:
        low, high = extra["search"]
        searched = f"{low:g} to {high:g}" + (", log" if extra["log"] else "")
    elif "choices" in extra:
        searched = ", ".join(extra["choices"])
    unit = extra.get("unit", "1")
    unit = "–" if unit == "1" else unit
    return [f"`{name}`", _text(field.default), unit, allowed(field), searched]


def _text(value: Any) -> str:
    """A setting's value as a suite file would give it."""
    return value if isinstance(value, str) and value else json.dumps(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
