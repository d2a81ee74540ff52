"""Content digests: what a run depends on, as short strings that are equal when it is equal."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

ROOM_PREFIXES = ("bench.methods", "bench.models", "bench.datasets")
"""Code outside the core that a component may import, and that then counts as part of it."""


def digest(value: Any) -> str:
    """SHA-256 of a value made of dicts, lists, strings, numbers, booleans and None.

    Independent of the order of keys. Raises TypeError or ValueError on anything
    else, NaN and infinities included: two unequal things must not meet in one digest.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
    body, imported = _parse(file)
    seen[str(file)] = body
    if file.name == "__init__.py" and file.parent.name not in {"methods", "models", "datasets"}:
        for sibling in sorted(file.parent.rglob("*.py")):
            _collect(sibling.resolve(), seen)
    for module in imported:
        origin = _origin(module)
        if origin is not None:
            _collect(origin, seen)


@cache
def _parse(file: Path) -> tuple[str, tuple[str, ...]]:
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    imported: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported.append(node.module)
            imported.extend(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            imported.extend(alias.name for alias in node.names)
        _drop_docstring(node)
    rooms = tuple(sorted(m for m in set(imported) if m.startswith(ROOM_PREFIXES)))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), rooms


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


@cache
def _origin(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None  # a name imported from a module, not a module
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve()
