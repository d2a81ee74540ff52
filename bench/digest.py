"""Content digests: what a run depends on, as short strings that are equal when it is equal."""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any

ROOMS = ("bench.methods", "bench.models", "bench.datasets")
"""Code outside the core that a component may import, and that then counts as part of it."""


def digest(value: Any) -> str:
    """SHA-256 of a value made of dicts, lists, strings, numbers, booleans and None.

    Independent of the order of keys. Raises TypeError or ValueError on anything
    else, NaN and infinities included: two unequal things must not meet in one digest.
    """
    _require_text_keys(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _require_text_keys(value: Any) -> None:
    """JSON would write the keys 1 and "1" alike."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"digest: the key {key!r} is not text")
            _require_text_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _require_text_keys(item)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_digest(file: Path) -> str:
    """Digest of a component's code: its file and every room module that it imports, transitively.

    The syntax tree is hashed without docstrings, so that comments, layout and
    documentation may change while results stay valid. A component kept in a
    folder of its own (``methods/edgeta/``) counts with all the folder's files.
    """
    seen: dict[str, str] = {}
    _collect(file.resolve(), seen)
    return digest(sorted(seen.values()))


def _collect(file: Path, seen: dict[str, str]) -> None:
    if str(file) in seen:
        return
    body, imports = _parse(file)
    seen[str(file)] = body
    for companion in _companions(file):
        _collect(companion, seen)
    for module, level in imports:
        origin = _find(file.parents[level - 1], module) if level else _room_file(module)
        if origin is not None:
            _collect(origin, seen)


def _companions(file: Path) -> list[Path]:
    """All files of the folder below a room in which ``file`` lies; none for a file of its own."""
    for room in ROOMS:
        for location in _locations(room):
            if file.is_relative_to(location) and file.parent != location:
                folder = location / file.relative_to(location).parts[0]
                return [path.resolve() for path in sorted(folder.rglob("*.py"))]
    return []


@cache
def _parse(file: Path) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Digest of a file's code, and what it imports: (module, level), 0 for absolute."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    imports: set[tuple[str, int]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            imports.add((base, node.level))
            for alias in node.names:
                imports.add((f"{base}.{alias.name}".strip("."), node.level))
        elif isinstance(node, ast.Import):
            imports.update((alias.name, 0) for alias in node.names)
        _drop_docstring(node)
    body = hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
    return body, tuple(sorted(i for i in imports if i[0]))


def _drop_docstring(node: ast.AST) -> None:
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return
    first = node.body[0] if node.body else None
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        node.body = node.body[1:]


def _room_file(module: str) -> Path | None:
    """The file of a room's module, found by path: finding it by import would import its parents."""
    for room in ROOMS:
        if module == room or module.startswith(f"{room}."):
            for location in _locations(room):
                found = _find(location, module[len(room) + 1 :])
                if found is not None:
                    return found
    return None


def _find(folder: Path, module: str) -> Path | None:
    """The file of ``module`` relative to ``folder``; None for a name that is no module."""
    path = folder.joinpath(*module.split(".")) if module else folder
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file():
            return file.resolve()
    return None


def _locations(room: str) -> list[Path]:
    try:
        package = importlib.import_module(room)  # an empty package: this imports nothing heavy
    except ModuleNotFoundError:
        return []
    return [Path(location).resolve() for location in package.__path__]
