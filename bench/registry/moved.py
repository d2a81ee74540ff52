"""Where modules and names of earlier versions are now, for what still imports them.

A plugin that imports an old place gets an error that names the new one. Other scripts go on
working, with a warning.
"""

from __future__ import annotations

import ast
import importlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from bench.errors import BenchError
from bench.io.safe_yaml import read_yaml

FILE = Path(__file__).with_name("moved.yaml")


@cache
def moved_names() -> tuple[dict[str, str], dict[str, str]]:
    """New modules by old ones, and new names by old ones, both as dotted paths."""
    table = read_yaml(FILE, "moved modules")
    return table["modules"], table["names"]


class MovedModules(MetaPathFinder, Loader):
    """Imports a module by its old name as the new module, where no module has that name now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for an old module, or for a package that once held some."""
        if not fullname.startswith("bench."):
            return None
        old = moved_names()[0]
        if fullname in old:
            return ModuleSpec(fullname, self)
        held = any(module.startswith(f"{fullname}.") for module in old)
        return ModuleSpec(fullname, self, is_package=True) if held else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the new module in the place of the old one."""
        new = moved_names()[0].get(module.__name__)
        if new is not None:
            text = f"{module.__name__} has moved: import {new}"
            warnings.warn(text, FutureWarning, stacklevel=2)
            sys.modules[module.__name__] = importlib.import_module(new)


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
