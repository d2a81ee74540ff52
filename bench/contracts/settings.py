"""Types of settings that mean more than their value, and what a settings class allows."""

from __future__ import annotations

import typing
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any

import annotated_types
import pydantic
from pydantic.fields import FieldInfo

from bench.errors import BenchError
from bench.io.digest import digest, file_digest

_LOCAL = "content of a local file or folder"

LocalPath = Annotated[str, _LOCAL]
"""A setting that names a file or folder; its content, not its path, is part of the identity."""


def file_digests(config: pydantic.BaseModel) -> dict[str, str]:
    """SHA-256 of the contents that each `LocalPath` names; BenchError if one cannot be read."""
    local = [n for n, field in type(config).model_fields.items() if _LOCAL in field.metadata]
    return {n: _content_digest(Path(path), n) for n in local if (path := getattr(config, n))}


def _content_digest(path: Path, setting: str) -> str:
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            return digest([[p.relative_to(path).as_posix(), file_digest(p)] for p in files])
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
