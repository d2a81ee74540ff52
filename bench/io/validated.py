"""Contents of files that others wrote as models: the first mistake in one line, with its cure."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

import pydantic

from bench.errors import BenchError, did_you_mean, shown

RENAMED_KEYS = {"scenario": "stream"}
"""Keys of files from before version 0.2, and what they are called now."""
LONGEST_KEY = 100

Model = TypeVar("Model", bound=pydantic.BaseModel)


def validated(model: type[Model], content: Any, where: str) -> Model:
    """``content`` as a model; BenchError with ``where`` it is, the key and the cure."""
    try:
        return model.model_validate(content)
    except pydantic.ValidationError as error:
        raise BenchError(f"{where}: {explain(error, model)}") from error
    except Exception as error:  # of a component's own validators
        raise BenchError(
            f"{where}: {model.__name__} fails on these settings: {type(error).__name__}: {error}"
        ) from error


def explain(error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """The first thing that pydantic found wrong, in one line: key, value, cure."""
    # An unknown key is often a missing one misspelt: name that first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part)[:LONGEST_KEY] for part in first["loc"]) or "(whole)"
    if key in RENAMED_KEYS:
        return f"key {key!r}: is called {RENAMED_KEYS[key]!r} now; rename it"
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        cure = did_you_mean(str(first["loc"][-1]), known) if known else "remove it"
        return f"key {key!r}: unknown; {cure}"
    if first["type"] == "missing":
        return f"key {key!r}: missing; add it"
    given = first.get("input")
    message = first["msg"].removeprefix("Value error, ")
    return f"key {key!r}: {shown(given)} is not allowed: {message[0].lower()}{message[1:]}"


def _keys_at(model: type[pydantic.BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that are known at a place of a model; none where that is not one model alone."""
    found: list[type[pydantic.BaseModel]] = [model]
    for part in place:
        if isinstance(part, int):
            continue  # an element of a list, whose type the field before it names
        fields = [each.model_fields[part] for each in found if part in each.model_fields]
        if not fields:
            continue  # a key of a mapping, whose values the field before it names
        found = [each for field in fields for each in _models_in(field.annotation)]
    return list(found[0].model_fields) if len(found) == 1 else []


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [each for part in typing.get_args(annotation) for each in _models_in(part)]
