"""Digest of a component's code: equal when what it computes is equal."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from bench.errors import BenchError
from bench.io.digest import digest, file_digest
from bench.registry.code_files import (
    counts,
    imported_files,
    installed_plugin,
    package_content,
    packages,
)
from bench.registry.components import entries, load
from bench.registry.discovery import KINDS, Entry, assigned_name
from bench.registry.find_module import origin_of
from bench.registry.kept import KeptTable
from bench.registry.load_trace import files_read_by


def code_digest(file: Path, *around: Path) -> str:
    """Digest of what a file computes with: its code and the modules that it imports.

    Imports are followed transitively, those in functions too, through the rooms and every module
    outside the standard library and installed packages; ``around``: files that run before it.
    Hashed is the syntax tree without comments, layout, docstrings, the paper, equation and summary
    of a component, imports for type checkers, and the places of files; each imported name counts
    with the content of the module that it comes from. The core itself is versioned
    (`bench.records.cell.CORE_VERSION`).
    """
    reached = _Reached()
    for each in (*around, file):
        reached.number(each.resolve())
    found = digest(reached.content())
    _computations().save()
    return found


def component_digest(component: Entry) -> str:
    """Digest of a component's code; of one that was registered at run time without a file, the
    source of its class and of the functions, classes and plain constants that it uses.

    A plugin is imported, as what it puts on ``sys.path`` decides what it reaches. Raises BenchError
    if it cannot be, or if the source of a class made at run time is not known.
    """
    if component.file is not None:
        if component.origin == "bench":
            return code_digest(component.file, *packages(component.file.resolve()))
        load(component.kind, component.name)
        alone = component.origin.startswith("plugin")
        around = [] if alone else packages(component.file.resolve())
        return code_digest(component.file, *around)
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
    stripped = _Computation()
    seen[thing.__qualname__] = ast.unparse(stripped.visit(tree))
    around = vars(sys.modules[thing.__module__]) if thing.__module__ in sys.modules else {}
    for name in sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}):
        used = around.get(name)
        place = used if isinstance(used, ModuleType) else sys.modules.get(_module_of(used))
        file = origin_of(place)
        if isinstance(used, type | FunctionType) and used.__module__ == thing.__module__:
            if used.__qualname__ not in seen:
                _collect_source(used, seen)
        elif file is not None and counts(file):
            seen[name] = code_digest(file, *packages(file))
        elif isinstance(used, str | int | float | bool | tuple):
            seen[name] = repr(used)
    for each in stripped.imports:  # in functions; those of the module are bound to names
        for file in each.files(Path(inspect.getfile(thing))):
            seen[each.label] = code_digest(file, *packages(file))


def _module_of(used: Any) -> str:
    return used.__module__ if isinstance(used, type | FunctionType) else ""


class _Reached:
    """The files that an import reaches, numbered in the order in which they are first named.

    A file's entry has its own content, and for each imported name the numbers of the files that
    the name comes from: equal for equal code, wherever it lies.
    """

    def __init__(self) -> None:
        self._numbers: dict[Path, int] = {}
        self._entries: list[list[Any]] = []
        self._packages: dict[str, list[Any]] = {}

    def number(self, file: Path) -> int:
        if file in self._numbers:
            return self._numbers[file]
        number = self._numbers[file] = len(self._entries)
        body, imports = _parse(file)
        entry: list[Any] = [body]
        self._entries.append(entry)
        package = installed_plugin(file)
        if package is not None:
            self._packages.setdefault(package.name, package_content(package))
        for each in imports:
            entry.append([each.label, *map(self.number, each.files(file))])
        return number

    def content(self) -> list[Any]:
        """What is hashed; files that were opened while those were loaded come last."""
        done = 0
        while done < len(self._entries):
            file = list(self._numbers)[done]
            opened = [f for f in files_read_by(file) if f not in self._numbers]
            named = sorted(opened, key=lambda f: (f.name, _parse(f)[0]))
            self._entries[done].append([[f.name, self.number(f)] for f in named])
            done += 1
        return [self._entries, sorted(self._packages.values())]


@dataclass(frozen=True)
class _Import:
    """One imported name: ``label``, what the code sees of it; ``modules``: those it may come from,
    each with its level; ``component``: kind and name, where it is loaded from the registry.
    """

    label: str
    modules: tuple[tuple[str, int], ...] = ()
    component: tuple[str, str] | None = None

    def files(self, importer: Path) -> list[Path]:
        """The files that count, without doubles."""
        found: dict[Path, None] = {}
        if self.component is not None and self.component[1] in entries(self.component[0]):
            file = entries(self.component[0])[self.component[1]].file
            found = {} if file is None else dict.fromkeys([file.resolve()])
        for module, level in self.modules:
            found |= dict.fromkeys(imported_files(module, level, importer))
        return list(found)


@cache
def _parse(file: Path) -> tuple[str, tuple[_Import, ...]]:
    """Digest of a file's content, and what it imports, by label; of no Python the bytes' digest."""
    if file.suffix != ".py":
        return file_digest(file), ()
    content = file.read_bytes()
    body, imports = _computations().get(content, lambda: _computation(content))
    return body, tuple(
        _Import(label, tuple((name, level) for name, level in modules), component and (*component,))
        for label, modules, component in imports
    )


def _computation(content: bytes) -> tuple[str, list[Any]]:
    """What `_parse` tells of a Python file, as JSON values."""
    try:
        stripped = _Computation()
        code = ast.unparse(stripped.visit(ast.parse(content)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return hashlib.sha256(content).hexdigest(), []
    imports = sorted(stripped.imports, key=lambda each: each.label)
    told = [(each.label, each.modules, each.component) for each in imports]
    return hashlib.sha256(code.encode()).hexdigest(), told


@cache
def _computations() -> KeptTable:
    """By the content of files; of this version of Python, which prints code as it does, and of this
    module.
    """
    program = hashlib.sha256(f"{sys.version} {KINDS} ".encode() + Path(__file__).read_bytes())
    return KeptTable("computations", program.hexdigest()[:32])


class _Computation(ast.NodeTransformer):
    """Takes out what changes no result, and keeps ``imports`` apart."""

    def __init__(self) -> None:
        self.imports: list[_Import] = []

    def visit(self, node: ast.AST) -> Any:
        made = super().visit(node)
        if isinstance(made, _DOCUMENTED) and ast.get_docstring(made, clean=False) is not None:
            made.body = made.body[1:]
        if isinstance(getattr(made, "body", None), list) and not made.body:
            made.body = [] if isinstance(made, ast.Module) else [ast.Pass()]
        return made

    def visit_Module(self, node: ast.Module) -> Any:
        self.generic_visit(node)
        # In a module the order of imports is layout; within a block, which is run, matters.
        node.body = [
            each for each in node.body if not isinstance(each, ast.Import | ast.ImportFrom)
        ]
        return node

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
        base, level = node.module or "", node.level
        if base == "__future__":
            return None
        ours = level or base.partition(".")[0] == "bench"
        for alias in node.names:
            modules = (base, level), (f"{base}.{alias.name}".strip("."), level)
            self._add(alias, "" if ours else f"{base} ", modules)
        return ast.ImportFrom("_" if ours else base, node.names, 0)

    def visit_Import(self, node: ast.Import) -> Any:
        for alias in node.names:
            self._add(alias, "", ((alias.name, 0),))
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        """``importlib.import_module("a.b")``, ``__import__("a")``, ``load("method", "tent")``."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        name = name or getattr(node.func, "id", "")
        texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
        if name in ("import_module", "__import__") and texts and isinstance(texts[0], str):
            level = len(texts[0]) - len(texts[0].lstrip("."))
            self.imports.append(_Import(texts[0], ((texts[0][level:], level),)))
        elif name == "load" and len(texts) == 2 and texts[0] in KINDS:
            self.imports.append(_Import(" ".join(map(str, texts)), (), (texts[0], str(texts[1]))))
        return self.generic_visit(node)

    def _add(self, alias: ast.alias, origin: str, modules: tuple[tuple[str, int], ...]) -> None:
        self.imports.append(_Import(origin + ast.unparse(alias), modules))


_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_DESCRIPTIVE = ("paper", "equation")
