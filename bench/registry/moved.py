"""Where modules and names of earlier versions are now, for plugins that still import them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.errors import BenchError
from bench.io.safe_yaml import read_yaml

FILE = Path(__file__).with_name("moved.yaml")


@cache
def moved_names() -> tuple[dict[str, str], dict[str, str]]:
    """New modules by old ones, and new names by old ones, both as dotted paths."""
    table = read_yaml(FILE, "moved modules")
    return table["modules"], table["names"]


@cache
def require_current_imports(file: Path) -> None:
    """BenchError, with line and new place, if a plugin imports what moved, save inside ``try``."""
    facade = getattr(sys.modules["bench"], "__all__", ())
    for line, module, name in _imports(ast.parse(file.read_bytes())):
        renamed = moved_names()[1].get(f"{module}.{name}", "")
        place, _, called = renamed.rpartition(".") if renamed else (_new_module(module), "", name)
        if place is not None:
            place = "bench" if called in facade else place
            raise BenchError(
                f"plugin {file}, line {line}: {_statement(module, name)!r} has moved; write "
                f"{_statement(place, called)!r}"
            )


def _imports(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """Line, module and name of each absolute import; the name is empty for a whole module."""
    waiting = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, "") for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                yield from ((child.lineno, child.module, alias.name) for alias in child.names)
            elif not isinstance(child, ast.Try):
                waiting.append(child)


def _statement(module: str, name: str) -> str:
    return f"from {module} import {name}" if name else f"import {module}"


def _new_module(old: str) -> str | None:
    prefix, rest = old, ""
    while prefix:
        if prefix in moved_names()[0]:
            return moved_names()[0][prefix] + rest
        prefix, _, last = prefix.rpartition(".")
        rest = f".{last}{rest}"
    return None
