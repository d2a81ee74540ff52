"""A record file is read as what anyone may have written: it is a record, or one line says why not.

What a file says of itself must agree: its name, the ``identity`` in it and the digest of its cell.
So a copy is not counted twice, and the content of one cell does not stand under another's name.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

import pydantic

from bench.io.digest import digest
from bench.records.cell import Cell
from bench.records.record import SCHEMA_VERSION, Record

MOST_BYTES = 32 * 2**20
"""Of a record file; one with an accuracy matrix of 500 domains has 5 MB."""
MOST_DIGITS = 30
"""Of an integer."""
DEEPEST = 32
"""Levels of lists and objects in settings."""
LONGEST = 300
"""Characters of a reason."""

HASHED_AS_NOW = 5
"""The first core version whose cells are all hashed as `Cell.identity` does it."""


def read_record(path: Path) -> Record:
    """The record in a file; ValueError or OSError if there is none, see `reason`."""
    content = _content(_bytes(path))
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or not 0 < version <= SCHEMA_VERSION:
        raise ValueError(f"schema version {version!r}; this program reads {SCHEMA_VERSION}")
    for part in ("cell", "method", "environment"):
        _require_shallow(content.get(part), part)
    record = Record.model_validate(content, strict=True)
    _require_results(record)
    if record.identity not in identities(record.cell, content["cell"]):
        raise ValueError(
            f"its identity {record.identity} is not that of its cell, {record.cell.identity}: it "
            "was edited, or is from another program"
        )
    if path.name != f"{record.identity}.json":
        raise ValueError(
            f"it is the record of cell {record.identity}, which {record.identity}.json holds: a "
            "copy, or under a wrong name"
        )
    return record


def reason(error: BaseException) -> str:
    """Why a file is no record, in one line of printable characters."""
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False, include_context=False)[0]
        text = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        if isinstance(first["input"], bool | int | float | str):
            text += f", not {first['input']!r:.60}"
    elif isinstance(error, RecursionError):
        text = "it is nested too deeply"
    elif isinstance(error, MemoryError):
        text = "it does not fit into memory"
    elif isinstance(error, OSError) and error.strerror:
        text = error.strerror
    else:
        text = str(error)
    shown = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * LONGEST]).split())
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 1]}…"


def identities(cell: Cell, written: dict[str, Any]) -> set[str]:
    """What the record of a cell may be called; ``written``: the cell as its file has it.

    The digest of its content, core version included, as `Cell.identity` makes it. Cells from before
    `HASHED_AS_NOW` were hashed under the keys that they were written with, without settings of
    origin "default" and without a variant that is None; the first of them with the paths of
    profiles and without what `Component.content` does about files.
    """
    found = {cell.identity}
    if cell.core < HASHED_AS_NOW:
        left_out = (("settings", "default"), ("settings_origin", "default"), ("variant", None))
        old = {key: value for key, value in written.items() if (key, value) not in left_out}
        found.add(digest(old)[:20])
        kinds = {"method": cell.method, "model": cell.model, "variant": cell.variant}
        kinds |= {"stream": cell.stream, "scenario": cell.stream}
        old |= {kind: each.content() for kind, each in kinds.items() if each and kind in old}
        if cell.device_title != cell.device:
            old["device"] = "file"
        found.add(digest(old)[:20])
    return found


def _bytes(path: Path) -> bytes:
    """A regular file's content: a pipe would not end, and opening a device may do anything."""
    _require_regular(path.stat())
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        _require_regular(status)
        content = b"" if status.st_size > MOST_BYTES else stream.read(MOST_BYTES + 1)
    size = max(status.st_size, len(content))
    if size > MOST_BYTES:
        raise ValueError(f"it has {size / 1e6:.0f} MB; a record has at most {MOST_BYTES / 1e6:.0f}")
    return content


def _require_regular(status: os.stat_result) -> None:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'no file')}, not a file")


def _content(written: bytes) -> Any:
    """JSON values with finite numbers and text that can be written again."""
    content = json.loads(
        written.decode(), parse_float=_finite, parse_int=_short, parse_constant=_not_finite
    )
    if re.search(rb"\\u[dD][89a-fA-F]", written):  # half of a pair, unless its other half follows
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half a character (a lone surrogate)") from None
    return content


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"it holds {text[:20]}, which is no finite number")


def _short(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"it holds an integer {len(text)} characters long")
    return int(text)


def _require_shallow(value: Any, part: str, levels: int = DEEPEST) -> None:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if items and not levels:
        raise ValueError(f"{part}: it is nested more than {DEEPEST} levels deep")
    for item in items:
        _require_shallow(item, part, levels - 1)


def _require_results(record: Record) -> None:
    if record.results is None:
        if record.status == "ok":
            raise ValueError("status ok without results")
    elif not record.results.domains:
        raise ValueError(f"status {record.status} with results of no domain")
