"""Types of settings that mean more than their value, and what a settings class allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from bench.digest import digest, file_digest
from bench.errors import BenchError

_LOCAL = "content of a local file or folder"

LocalPath = Annotated[str, _LOCAL]
"""A setting that names a file or folder; its content, not its path, is part of the identity."""


def file_digests(config: pydantic.BaseModel) -> dict[str, str]:
    """SHA-256 of what each `LocalPath` of ``config`` names, by setting; empty ones are left out.

    A folder's digest is that of its files' names and contents. Raises BenchError if there is no
    such file or folder.
    """
    found = {}
    for name, field in type(config).model_fields.items():
        path = getattr(config, name)
        if _LOCAL in field.metadata and path:
            found[name] = _content_digest(Path(path), name)
    return found


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
