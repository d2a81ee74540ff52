"""Read from source text which components a file registers and what their classes declare.

Nothing is executed: listing never imports torch. A fact is a class attribute that is a literal;
facts follow base classes, through imports from this project and within the file.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bench.errors import BenchError

CONTRACTS: dict[str, tuple[str, str] | None] = {
    "method": ("bench.contracts.method", "Method"),
    "model": ("bench.contracts.model", "FoundationModel"),
    "variant": ("bench.contracts.model", "Variant"),
    "stream": ("bench.contracts.stream", "Stream"),
    "protocol": ("bench.run.protocols.base", "Protocol"),
    "executor": ("bench.execute.base", "Executor"),
    "report": None,
}
"""For each kind, module and name of the class that its components are subclasses of, if any. A
further kind is a line here and a class to subclass.
"""

KINDS = tuple(CONTRACTS)

PACKAGES = (
    "bench.methods",
    "bench.models",
    "bench.datasets",
    "bench.reports",
    "bench.run.protocols",
    "bench.execute",
)
"""Packages of this project in which components are looked for."""

ENTRY_POINT_GROUPS = (*(f"bench.{kind}s" for kind in KINDS), "bench.datasets")
"""Groups under which other installed packages name modules with components."""


@dataclass(frozen=True)
class Entry:
    """One registered component.

    Attributes
    ----------
    module, attribute : where the class or function is
    file : it is written in; None for what was registered at run time
    summary : the first paragraph of its docstring
    origin : "bench", "plugin FILE", "entry point NAME" or "run time"
    facts : class attributes that are literals (family, tasks, needs, ...), inherited ones too
    config : settings whose defaults differ under this name from those of the class
    changes : class attributes that differ under this name from those of the class
    thing : the class or function itself, if it was registered at run time
    """

    kind: str
    name: str
    module: str
    attribute: str
    file: Path | None
    summary: str
    origin: str
    facts: dict[str, Any] = field(default_factory=dict, hash=False)
    config: dict[str, Any] = field(default_factory=dict, hash=False)
    changes: dict[str, Any] = field(default_factory=dict, hash=False)
    thing: Any = field(default=None, hash=False, compare=False)


def discover(plugins: dict[Path, str]) -> Iterator[Entry]:
    """The components of this project, of installed packages, and of plugins (file: module)."""
    for package in PACKAGES:
        yield from scan_package(package)
    for group in ENTRY_POINT_GROUPS:
        for point in entry_points(group=group):
            module = point.value.partition(":")[0].strip()
            spec = importlib.util.find_spec(module)
            if spec is None or spec.origin is None:
                raise BenchError(
                    f"entry point {point.name!r} of group {group!r} names {module!r}, which is "
                    "not installed: reinstall or remove the package that declares it"
                )
            yield from scan_file(Path(spec.origin), module, f"entry point {point.name}")
    for file, module in plugins.items():
        yield from scan_file(file, module, f"plugin {file}")


def scan_package(package: str) -> Iterator[Entry]:
    """The components of an installed package, its subpackages included."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BenchError(
            f"package {package!r} is not installed: install the project with 'pip install .'"
        )
    for location in spec.submodule_search_locations:
        root = Path(location)
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            yield from scan_file(file, ".".join((package, *parts)), "bench")


def scan_file(file: Path, module: str, origin: str) -> list[Entry]:
    """The components that a file registers at its top level; BenchError if it is not Python."""
    tree = _tree(file)
    ours = _names_of_register(tree)
    found = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            call = _registration(decorator, ours)
            if call is None:
                continue
            kind, name, changes = call
            if kind not in KINDS:
                raise BenchError(
                    f"{file}:{node.lineno}: unknown kind {kind!r}; use one of {', '.join(KINDS)}"
                )
            config = changes.pop("config", {})
            summary = changes.pop("summary", None) or summary_of(ast.get_docstring(node))
            facts = (_facts(node, file) if isinstance(node, ast.ClassDef) else {}) | changes
            place = (module, node.name, file, summary, origin)
            found.append(Entry(kind, name, *place, facts, config, changes))
    return found


def summary_of(docstring: str | None) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((docstring or "").split("\n\n")[0].split())


def forget_sources() -> None:
    """Read files again when they are asked for next."""
    _tree.cache_clear()


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise BenchError(f"{file}: not valid Python: {error}") from error


def _names_of_register(tree: ast.Module) -> set[str]:
    """What this project's `register` is called in a file, as ``register`` or ``bench.register``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {f"{a.asname or a.name}.register" for a in node.names if a.name == "bench"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "bench":
            for alias in node.names:
                called = alias.asname or alias.name
                if alias.name == "register":
                    names.add(called)
                elif alias.name == "registry":
                    names.add(f"{called}.register")
    return names


def _registration(decorator: ast.expr, ours: set[str]) -> tuple[str, str, dict[str, Any]] | None:
    """Kind, name and keywords of ``@register("kind", "name", ...)``; None for anything else."""
    if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) not in ours:
        return None
    try:
        kind, name = map(ast.literal_eval, decorator.args)
        given = {str(k.arg): ast.literal_eval(k.value) for k in decorator.keywords}
    except ValueError:  # no literals, or not two of them
        return None
    return (kind, name, given) if isinstance(kind, str) and isinstance(name, str) else None


def _facts(node: ast.ClassDef, file: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """Literal class attributes of a class, those of its bases below its own."""
    facts: dict[str, Any] = {}
    if f"{file}:{node.name}" in seen:
        return facts
    for base in reversed(node.bases):
        found = _class(base.id, file) if isinstance(base, ast.Name) else None
        if found is not None:
            facts |= _facts(*found, (*seen, f"{file}:{node.name}"))
    for statement in node.body:
        name = assigned_name(statement)
        value = getattr(statement, "value", None)
        if name and value is not None:
            facts.pop(name, None)
            with suppress(ValueError):
                facts[name] = ast.literal_eval(value)
    return facts


def assigned_name(node: ast.stmt) -> str:
    """The name that a statement gives a value to, or nothing."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        return getattr(node.targets[0], "id", "")
    return getattr(node.target, "id", "") if isinstance(node, ast.AnnAssign) else ""


def _class(name: str, file: Path) -> tuple[ast.ClassDef, Path] | None:
    """A class by its name in a file: written there, or imported from this project."""
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, file
    for statement in ast.walk(_tree(file)):
        if not isinstance(statement, ast.ImportFrom):
            continue
        for alias in statement.names:
            if (alias.asname or alias.name) == name:
                origin = _imported_file(statement.module or "", statement.level, file)
                return None if origin in (None, file) else _class(alias.name, origin)
    return None


def module_file(folder: Path, module: str) -> Path | None:
    """The file of ``module`` relative to ``folder``; None for a name that is no module."""
    path = folder.joinpath(*module.split(".")) if module else folder
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def _imported_file(module: str, level: int, file: Path) -> Path | None:
    """The file of an imported module of this project; None for other packages' modules."""
    if level:
        return module_file(file.parents[level - 1], module)
    if module.partition(".")[0] != "bench":
        return None
    spec = importlib.util.find_spec(module)  # runs the packages above it, which are empty
    return Path(spec.origin) if spec is not None and spec.origin else None
