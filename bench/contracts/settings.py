"""Types of settings that mean more than their value, and what a settings class allows."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, Protocol, runtime_checkable

import annotated_types
import pydantic
import pydantic_core
from pydantic.fields import FieldInfo

from bench.errors import BenchError
from bench.io.digest import digest, file_digest

_LOCAL = "content of a local file or folder"

LocalPath = Annotated[str, _LOCAL]
"""A setting that names a file or folder; its content, not its path, is part of the identity."""
HUB = "hub"
"""In the place of a path of weights: those that the Hugging Face hub has."""


@runtime_checkable
class _WithContent(Protocol):
    """A setting that knows the digest of the files that it stands for."""

    def content_digest(self) -> str: ...


def file_digests(config: pydantic.BaseModel) -> dict[str, str]:
    """SHA-256 of the contents of the files that settings name, by setting.

    A `LocalPath`, and a ``Path`` of pydantic's types, counts with its file's or folder's content; a
    plain text with that of an existing file, if it looks like a path: it has a ``/`` or a suffix.
    A list, mapping or nested model that names some counts as a whole, and a nested model that has a
    ``content_digest`` with that. BenchError if a `LocalPath` cannot be read.
    """
    found = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if _LOCAL in field.metadata:
            if value:
                found[name] = _content_digest(Path(value), name)
        elif isinstance(value, str | PurePath):
            if _names_a_file(value):
                found[name] = _content_digest(Path(value), name)
        elif isinstance(value, _WithContent):
            found[name] = value.content_digest()
        elif any(map(_names_a_file, leaves(value))):
            found[name] = digest(_with_contents(value, name))
    return found


def local_paths(config: type[pydantic.BaseModel]) -> list[str]:
    """The settings of a class that are a `LocalPath`."""
    return [name for name, field in config.model_fields.items() if _LOCAL in field.metadata]


def _names_a_file(value: Any) -> bool:
    """Whether a value is a path that exists, or a text that names a file."""
    try:
        if isinstance(value, PurePath):
            return value != PurePath() and (Path(value).is_file() or Path(value).is_dir())
        if not isinstance(value, str) or not (os.sep in value or PurePath(value).suffix):
            return False
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False


def leaves(value: Any) -> Iterator[Any]:
    """The values in nested containers and models, without recursion: they may be deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, pydantic.BaseModel):
            waiting += [getattr(each, name) for name in type(each).model_fields]
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
        else:
            yield each


def _with_contents(value: Any, setting: str) -> Any:
    """A value as JSON, each file that it names replaced by its content's digest."""
    if isinstance(value, pydantic.BaseModel):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {str(k): _with_contents(v, setting) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_with_contents(v, setting) for v in value), key=repr)
    if isinstance(value, list | tuple):
        return [_with_contents(v, setting) for v in value]
    if _names_a_file(value):
        return [_LOCAL, _content_digest(Path(value), setting)]
    return pydantic_core.to_jsonable_python(value, fallback=repr)


def _content_digest(path: Path, setting: str) -> str:
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            return digest([[p.relative_to(path).as_posix(), file_digest(p)] for p in files])
        if path.exists() and not path.is_file():
            raise BenchError(f"setting {setting!r}: {path} is neither a file nor a folder")
        return file_digest(path)
    except OSError as error:
        raise BenchError(
            f"setting {setting!r}: {path} cannot be read: {error.strerror}; give the path of a "
            "file or folder"
        ) from error


def limits(field: FieldInfo) -> dict[str, float]:
    """The constraints on a number's field, as ``{"gt": 0, "le": 1}``."""
    found: dict[str, float] = {}
    for item in field.metadata:
        for constraint in item if isinstance(item, annotated_types.GroupedMetadata) else [item]:
            for name in ("ge", "gt", "le", "lt"):
                if getattr(constraint, name, None) is not None:
                    found[name] = getattr(constraint, name)
    return found


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """The least and the greatest value of a number's field; None where there is no bound."""
    found = limits(field)
    return found.get("ge", found.get("gt")), found.get("le", found.get("lt"))


def choices(annotation: Any) -> list[Any] | None:
    """All values of a type that has finitely many (bool, None, Literal, Enum, their union)."""
    if annotation is bool:
        return [True, False]
    if annotation in (None, type(None)):
        return [None]
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [member.value for member in annotation]
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        parts = [choices(part) for part in typing.get_args(annotation)]
        return None if None in parts else [value for part in parts for value in part or ()]
    return None
