"""The pages of suite files and of records in Markdown, from their pydantic models."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pydantic

from bench import registry
from bench.docgen.markdown import code_marks, default, described_fields, described_settings, table
from bench.records.record import Record
from bench.study.suite import Suite, load_suite, suite_files

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

SUITE_HEAD = """\
# Suite files

Written by `bench docs` from the schema; do not edit. A suite file is YAML. How to write one is in
[how-to/suite.md](../how-to/suite.md). An unknown key, a missing one or a value that is not allowed
is an error that names the file, the key and the cure.
"""
RECORD_HEAD = """\
# Records

Written by `bench docs` from the schema; do not edit. A record is one JSON file,
`STORE/records/IDENTITY.json`: what one run left, whatever way it ended. How the identity is made is
in [explanation/identity-and-resume.md](../explanation/identity-and-resume.md). Records of earlier
versions of this schema are still read.
"""
REFERENCES = """\
A method, stream, model or variant is given by its name (`tent`), or as a mapping of its name and
the settings that differ from the defaults (`{name: tent, learning_rate: 0.01}`). `seeds: 5` means
the seeds 0 to 4, `seeds: [5]` the seed 5 alone. A single device or variant needs no list."""


def suite_page() -> str:
    """The whole page of suite files."""
    _, notes = described_fields(Suite)
    rows = [
        [f"`{name}`", _default(field), notes.get(name, "–")]
        for name, field in Suite.model_fields.items()
    ]
    suites = [[f"`{name}`", load_suite(name)[0].description] for name in suite_files()]
    parts = [
        SUITE_HEAD,
        "## Keys",
        table(["key", "default", "meaning"], rows),
        REFERENCES,
        *(
            part
            for kind in ("protocol", "stream", "model", "variant")
            for part in _components(kind)
        ),
        "## Methods",
        "Their settings are in [methods.md](methods.md).",
        "## Suites that ship",
        table(["name", "description"], suites),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def record_page() -> str:
    """The whole page of records."""
    parts = [RECORD_HEAD.strip()]
    for model in _models(Record):
        rest, notes = described_fields(model)
        rows = [
            [f"`{name}`", _type(field.annotation), _default(field), notes.get(name, "–")]
            for name, field in model.model_fields.items()
        ]
        parts += [f"## {model.__name__}", rest, table(["key", "type", "default", "meaning"], rows)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _components(kind: str) -> Iterator[str]:
    """Every registered component of a kind with its settings."""
    yield f"## {kind.capitalize()}s"
    for name, entry in registry.entries(kind).items():
        config = registry.load(kind, name).Config
        yield f"### {name}"
        yield code_marks(entry.summary)
        yield described_settings(config) if config.model_fields else "It has no settings."


def _default(field: FieldInfo) -> str:
    value = "" if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(value, list) and any(isinstance(v, pydantic.BaseModel) for v in value):
        return ", ".join(str(v.name) for v in value)
    return default(field)


def _models(root: type[pydantic.BaseModel]) -> list[type[pydantic.BaseModel]]:
    """A model and those that its fields hold, each once, from the outside inwards."""
    found: dict[type[pydantic.BaseModel], None] = {}
    waiting: list[Any] = [root]
    while waiting:
        annotation = waiting.pop(0)
        parts = list(typing.get_args(annotation))
        if _is_model(annotation) and annotation not in found:
            found[annotation] = None
            parts = [field.annotation for field in annotation.model_fields.values()]
        waiting = parts + waiting
    return list(found)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def _type(annotation: Any) -> str:
    """A type in words: ``list of DomainResult``, ``number or null``."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in parts)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is list:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return "mapping" if parts[1] is Any else f"mapping to {_type(parts[1])}"
    if _is_model(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    names = {
        str: "text", int: "whole number", float: "number", bool: "true or false",
        type(None): "null",
    }  # fmt: skip
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
