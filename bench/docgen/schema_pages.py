"""The pages of commands, suite files and records in Markdown, from what defines each of them."""

from __future__ import annotations

import re
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

CLI_HEAD = """\
# Commands

Written by `bench docs` from the command line itself; do not edit. `bench COMMAND --help` prints the
same. Options may be given in any order; a repeatable one is given once for each value.
"""
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
the seeds 0 to 4, `seeds: [5]` the seed 5 alone. A single device or variant needs no list.

A model has two keys beside its settings. `training` changes how it is trained on the source, as
`{epochs: 3, learning_rate: 2e-5}`: the keys are those of `bench.SourceTraining`, and 0 epochs take
the weights as they are. `expected_source: [0.9, 1.0]` fails a run whose source model has a metric
outside this band on the source's test split."""


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
            for kind in ("protocol", "dataset", "stream", "model", "variant")
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
    yield "## Data sets" if kind == "dataset" else f"## {kind.capitalize()}s"
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


def cli_page(root: Any) -> str:
    """The whole page of commands; ``root`` is the click group of ``bench``."""
    context = root.context_class(root, info_name="bench")
    leaves = list(_leaves(root, context))
    rows = [[f"[`{p}`](#{p.replace(' ', '-')})", _paragraphs(leaf)[0]] for p, leaf, _ in leaves]
    parts = [CLI_HEAD.strip(), table(["command", "what it does"], rows)]
    for path, leaf, context in leaves:
        pieces = " ".join(leaf.collect_usage_pieces(context))
        parts += [f"## {path}", *_paragraphs(leaf), f"```text\n{path} {pieces}\n```"]
        options = [_option(record) for p in leaf.params if (record := p.get_help_record(context))]
        if options:
            parts.append(table(["option", "meaning"], options))
    return "\n\n".join(parts) + "\n"


def _leaves(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """The commands that do something: (what to type, command, context)."""
    if not hasattr(command, "commands"):
        yield context.command_path, command, context
        return
    for name, child in command.commands.items():
        yield from _leaves(child, child.context_class(child, info_name=name, parent=context))


def _paragraphs(command: Any) -> list[str]:
    return [" ".join(part.split()) for part in (command.help or "").split("\n\n")]


def _option(record: tuple[str, str]) -> list[str]:
    # A list is a repeatable option: the type of one value says more.
    name = re.sub(r"<list\[(.+)\]>", r"<\1>", record[0])
    return [f"`{name}`", record[1].replace("  [", " [")]
