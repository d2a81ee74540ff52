"""Read from source text which components a file registers and what their classes declare.

Nothing is executed: listing never imports torch. A fact is a class attribute that is a literal;
facts follow base classes, through imports from this project and within the file.
"""

from __future__ import annotations

import ast
import importlib.util
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.registry.declarations import require_declared, require_name
from bench.registry.find_module import below, find_module
from bench.registry.kept import contents_key, kept

CONTRACTS: dict[str, tuple[str, str] | None] = {
    "method": ("bench.contracts.method", "Method"),
    "model": ("bench.contracts.model", "FoundationModel"),
    "variant": ("bench.contracts.model", "Variant"),
    "dataset": ("bench.contracts.dataset", "DataSet"),
    "stream": ("bench.contracts.stream", "Stream"),
    "task": ("bench.contracts.task", "Task"),
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
    "bench.tasks",
    "bench.run.protocols",
    "bench.execute",
    "bench.cluster",
)
"""Packages of this project in which components are looked for."""

ENTRY_POINT_GROUPS = tuple(f"bench.{kind}s" for kind in KINDS)
"""Groups under which other installed packages name modules with components."""

REGISTERS = b"register"
"""Every file that registers something has this word, whatever it calls the function."""


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
    """The components of this project, and of plugins (file: module)."""
    yield from _own()
    for file, module in plugins.items():
        yield from scan_file(file, module, f"plugin {file}")


@cache
def _own() -> list[Entry]:
    """Of all `PACKAGES`, whose source is not parsed again as long as none of it changes."""
    core = Path(__file__).parents[1]
    rooms = [location for package in PACKAGES for location in _locations(package)]

    def scan() -> list[tuple[Any, ...]]:
        found = [entry for package in PACKAGES for entry in scan_package(package)]
        return [(*astuple(replace(e, file=None)), str(e.file)) for e in found]

    entries = []
    for *fields, _, file in kept("components", contents_key([core, *rooms]), scan):
        entry = Entry(*fields)
        entries.append(replace(entry, file=Path(file)))
    return entries


def discover_installed() -> Iterator[Entry | BenchError]:
    """The components of installed packages; for an entry point that is of no use, the reason."""
    for group in ENTRY_POINT_GROUPS:
        for point in installed_points().select(group=group):
            module = point.value.partition(":")[0].strip()
            where = f"entry point {point.name!r} of group {group!r}"
            file = find_module(module)  # importing what it lies in would run it
            try:
                if file is None:
                    raise BenchError(
                        f"names {module!r}, which is not installed: reinstall or remove the "
                        "package that declares it"
                    )
                yield from scan_file(file, module, f"entry point {point.name}")
            except BenchError as error:
                yield BenchError(f"{where}: {error}")


@cache
def installed_points() -> Any:  # its type is another one for each version of Python
    """The entry points of all installed packages, of each of which a file is read."""
    return entry_points()


def scan_project() -> None:
    """Scan the packages of this project now, for the children of this process.

    What files say is forgotten: they may change before a child is asked.
    """
    _own()
    forget_sources()


def scan_package(package: str) -> list[Entry]:
    """The components of an installed package, its subpackages included."""
    found = []
    for root in _locations(package):
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            if REGISTERS in file.read_bytes():  # parsing the others would take the longest
                found += scan_file(file, ".".join((package, *parts)), "bench")
    return found


def _locations(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise BenchError(
            f"package {package!r} is not installed: install the project with 'pip install .'"
        )
    return [Path(location) for location in spec.submodule_search_locations]


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
            where = f"{file}:{node.lineno}"
            require_name(kind, name, where)
            config = changes.pop("config", {})
            summary = changes.pop("summary", None) or summary_of(ast.get_docstring(node))
            if not (isinstance(config, dict) and isinstance(summary, str)):
                raise BenchError(
                    f"{where}: {kind} {name!r}: config is a mapping of settings, summary a text"
                )
            facts = (_facts(node, file) if isinstance(node, ast.ClassDef) else {}) | changes
            require_declared(kind, name, facts, where)
            place = (module, node.name, file, summary, origin)
            found.append(Entry(kind, name, *place, facts, config, changes))
    return found


def summary_of(docstring: str | None) -> str:
    """The first paragraph of a docstring in one line."""
    return " ".join((docstring or "").split("\n\n")[0].split())


def forget_sources() -> None:
    """Read the files of others again when they are asked for next."""
    _tree.cache_clear()


@cache
def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (RecursionError, MemoryError) as error:
        raise BenchError(
            f"{file}: an expression is nested too deeply; build it in steps"
        ) from error
    except (SyntaxError, ValueError) as error:
        raise BenchError(f"{file}: not valid Python: {error}") from error
    except OSError as error:
        raise BenchError(f"{file}: cannot be read: {error.strerror}; check the path") from error


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """All statements of a file in the order of `ast.walk`, without expressions, most of a tree."""
    waiting: deque[ast.AST] = deque([tree])
    while waiting:
        node = waiting.popleft()
        yield node
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            waiting.extend(getattr(node, block, ()))


_NO_LITERAL = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
"""What `ast.literal_eval` raises."""


def _names_of_register(tree: ast.Module) -> set[str]:
    """What this project's `register` is called in a file, as ``register`` or ``bench.register``."""
    names = set()
    for node in _statements(tree):
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
    except _NO_LITERAL:  # no literals, or not two of them
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
            with suppress(*_NO_LITERAL):
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
    for statement in _statements(_tree(file)):
        if not isinstance(statement, ast.ImportFrom):
            continue
        for alias in statement.names:
            if (alias.asname or alias.name) == name:
                origin = _imported_file(statement.module or "", statement.level, file)
                return None if origin in (None, file) else _class(alias.name, origin)
    return None


def _imported_file(module: str, level: int, file: Path) -> Path | None:
    """The file of an imported module of this project; None for other packages' modules."""
    if level:
        return below([file.parents[level - 1]], module)
    return find_module(module) if module.partition(".")[0] == "bench" else None
