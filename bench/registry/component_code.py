"""Digest of a component's code: equal when what it computes is equal."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import textwrap
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from bench.errors import BenchError
from bench.io.digest import digest
from bench.registry.discovery import Entry, assigned_name, module_file

ROOMS = ("bench.methods", "bench.models", "bench.datasets")
"""Code outside the core that a component may import, and that then counts as part of it."""


def code_digest(file: Path) -> str:
    """Digest of what a component computes with: its file and the room modules that it imports.

    Imports are followed transitively, with the ``__init__.py`` of the folders they lie in. Hashed
    is the syntax tree without comments, layout, docstrings, the paper, equation and summary of a
    component, imports for type checkers, and where in this project an imported name comes from.
    The core itself is versioned (`bench.records.cell.CORE_VERSION`).
    """
    seen: dict[str, str] = {}
    _collect(file.resolve(), seen)
    return digest(sorted(seen.values()))


def component_digest(component: Entry) -> str:
    """Digest of a component's code; of one that was registered at run time without a file, the
    source of its class and of the functions, classes and plain constants that it uses.

    Raises BenchError if the source of the class itself is not known.
    """
    if component.file is not None:
        return code_digest(component.file)
    sources: dict[str, str] = {}
    _collect_source(component.thing, sources)
    if not sources[component.attribute]:
        raise BenchError(
            f"{component.kind} {component.name!r} was registered at run time and Python does not "
            "know its source, which identifies results: write it in a file or in a notebook"
        )
    return digest(sources)


def _collect_source(thing: Any, seen: dict[str, str]) -> None:
    """The computation of a class or function, and of what it uses of its module, by name."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        seen[thing.__qualname__] = ""
        return
    seen[thing.__qualname__] = ast.unparse(_Computation().visit(tree))
    around = vars(sys.modules[thing.__module__]) if thing.__module__ in sys.modules else {}
    for name in sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}):
        used = around.get(name)
        if isinstance(used, type | FunctionType):
            if used.__module__ == thing.__module__ and used.__qualname__ not in seen:
                _collect_source(used, seen)
        elif isinstance(used, str | int | float | bool | tuple):
            seen[name] = repr(used)


def _collect(file: Path, seen: dict[str, str]) -> None:
    if str(file) in seen:
        return
    body, imports = _parse(file)
    seen[str(file)] = body
    for module, level in imports:
        found = module_file(file.parents[level - 1], module) if level else _room_file(module)
        if found is not None:
            origin = found.resolve()
            for each in (*_packages(origin), origin):
                _collect(each, seen)


def _packages(file: Path) -> list[Path]:
    """The ``__init__.py`` of each folder between a room and ``file``: importing runs them too."""
    for room in ROOMS:
        for location in _locations(room):
            if file.is_relative_to(location):
                between = [p for p in file.parents if p != location and p.is_relative_to(location)]
                return [p / "__init__.py" for p in between if (p / "__init__.py").is_file()]
    return []


@cache
def _parse(file: Path) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Digest of a file's code, and what it imports: (module, level), 0 for absolute."""
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    stripped = _Computation()
    tree = stripped.visit(tree)
    text = "\n".join([*sorted(stripped.names), ast.unparse(tree)])
    body = hashlib.sha256(text.encode()).hexdigest()
    return body, tuple(sorted(i for i in stripped.imports if i[0]))


class _Computation(ast.NodeTransformer):
    """Takes out what changes no result; keeps ``names`` and ``imports`` (module, level) apart."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.imports: set[tuple[str, int]] = set()

    def visit(self, node: ast.AST) -> Any:
        made = super().visit(node)
        if isinstance(made, _DOCUMENTED) and ast.get_docstring(made, clean=False) is not None:
            made.body = made.body[1:]
        if isinstance(getattr(made, "body", None), list) and not made.body:
            made.body = [] if isinstance(made, ast.Module) else [ast.Pass()]
        return made

    def visit_If(self, node: ast.If) -> Any:
        test = node.test
        name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
        if name == "TYPE_CHECKING":
            return [self.visit(each) for each in node.orelse] or None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        node.body = [each for each in node.body if assigned_name(each) not in _DESCRIPTIVE]
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call):
                decorator.keywords = [
                    k for k in decorator.keywords if k.arg not in (*_DESCRIPTIVE, "summary")
                ]
        return self.generic_visit(node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        base = node.module or ""
        self.imports.add((base, node.level))
        self.imports.update((f"{base}.{a.name}".strip("."), node.level) for a in node.names)
        if base == "__future__":
            return None
        if not (node.level or base.partition(".")[0] == "bench"):
            return node
        self.names.update(ast.unparse(alias) for alias in node.names)
        return None

    def visit_Import(self, node: ast.Import) -> Any:
        self.imports.update((alias.name, 0) for alias in node.names)
        return node


_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_DESCRIPTIVE = ("paper", "equation")


def _room_file(module: str) -> Path | None:
    """The file of a room's module, found by path: finding it by import would import its parents."""
    for room in ROOMS:
        if module == room or module.startswith(f"{room}."):
            for location in _locations(room):
                found = module_file(location, module[len(room) + 1 :])
                if found is not None:
                    return found
    return None


def _locations(room: str) -> list[Path]:
    try:
        package = importlib.import_module(room)  # an empty package: this imports nothing heavy
    except ModuleNotFoundError:
        return []
    return [Path(location).resolve() for location in package.__path__]
