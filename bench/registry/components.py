"""Find methods, models, streams, reports, devices and suites by name, without importing them.

A component registers itself where it is written::

    @register("method", "tent")
    class Tent(Method): ...

One class under several names, each with its own default settings and facts::

    @register("method", "apps-ekya", config={"scheduler": "ekya"}, summary="...")
    @register("method", "apps-recl", config={"scheduler": "recl"}, summary="...")
    class MultiApp(Method): ...

Discovery reads the source text of the rooms (``bench.methods``, ``bench.models``,
``bench.datasets``, ``bench.reports``), of the modules named by installed
entry points, and of plugin files. It parses and does not execute, so listing
never imports torch; a component's module is imported when it is loaded.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import BenchError, did_you_mean

T = TypeVar("T")

ROOMS = ("bench.methods", "bench.models", "bench.datasets", "bench.reports")
KINDS = ("method", "model", "variant", "stream", "report")
CONTRACTS = {
    "method": ("bench.contracts.method", "Method"),
    "model": ("bench.contracts.model", "FoundationModel"),
    "variant": ("bench.contracts.variant", "Variant"),
    "stream": ("bench.contracts.stream", "Stream"),
}
ENTRY_POINT_GROUPS = ("bench.methods", "bench.models", "bench.datasets", "bench.streams")


@dataclass(frozen=True)
class Entry:
    """One registered component as its source text describes it.

    ``facts`` holds the class attributes that are literals (family, tasks, needs, ...), with what
    ``register`` was given by keyword; ``given`` holds the keywords alone.
    """

    kind: str
    name: str
    module: str
    attribute: str
    file: Path
    summary: str
    origin: str
    facts: dict[str, Any] = field(default_factory=dict, hash=False)
    given: dict[str, Any] = field(default_factory=dict, hash=False)


def register(kind: str, name: str, **given: Any) -> Callable[[T], T]:
    """Register the decorated class or function as component ``name`` of ``kind``.

    Keywords make ``name`` a subclass of the decorated class: ``config`` is a dict of default
    settings, ``summary`` the docstring, any other a class attribute. All arguments must be
    literals: discovery reads them from the source text. The decorator only stores the name.
    """
    if kind not in KINDS:
        raise BenchError(f"register: unknown kind {kind!r}; use one of {', '.join(KINDS)}")

    def mark(thing: T) -> T:
        if not given:
            thing.registered_name = name  # type: ignore[attr-defined]
        return thing

    return mark


def add_plugin(path: str | Path) -> None:
    """Make the components of one Python file known to this process.

    Raises BenchError if the file is missing, does not parse or registers nothing.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise BenchError(f"plugin {path}: no such file; give the path of a Python file")
    if file in _plugins:
        return
    module = f"bench_plugin_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    if not _scan_file(file, module, f"plugin {file}"):
        raise BenchError(
            f'plugin {path}: registers nothing; decorate a class with @register("method", "name")'
        )
    _plugins[file] = module
    _table.cache_clear()


def plugins() -> list[Path]:
    """The plugin files added so far, for handing on to another process."""
    return list(_plugins)


def entries(kind: str) -> dict[str, Entry]:
    """All components of one kind by name, in alphabetical order."""
    return dict(sorted(_table().get(kind, {}).items()))


def entry(kind: str, name: str) -> Entry:
    """The component ``name`` of ``kind``; BenchError with the nearest names if unknown."""
    known = entries(kind)
    if name not in known:
        raise BenchError(f"unknown {kind} {name!r}: {did_you_mean(name, known)}")
    return known[name]


def load(kind: str, name: str) -> Any:
    """Import and return the component ``name`` of ``kind``."""
    found = entry(kind, name)
    if found.file in _plugins:
        module = _import_file(found.file, found.module)
    else:
        try:
            module = importlib.import_module(found.module)
        except Exception as error:
            raise BenchError(
                f"{kind} {name!r} cannot be imported from {found.module}: "
                f"{type(error).__name__}: {error}; run 'bench doctor'"
            ) from error
    thing = getattr(module, found.attribute)
    if kind in CONTRACTS:
        base_module, base = CONTRACTS[kind]
        contract = getattr(importlib.import_module(base_module), base)
        if not (isinstance(thing, type) and issubclass(thing, contract)):
            raise BenchError(
                f"{kind} {name!r} in {found.file}: {found.attribute} is not a subclass of "
                f"bench.{base}"
            )
    return _configured(found, thing) if found.given else thing


@cache
def _configured(found: Entry, base: Any) -> Any:
    """The subclass that the keywords of `register` describe."""
    import pydantic

    facts = {k: v for k, v in found.given.items() if k not in ("config", "summary")}
    config = base.Config
    fields: dict[str, Any] = {}
    for key, value in found.given.get("config", {}).items():
        if key not in config.model_fields:
            raise BenchError(
                f"{found.kind} {found.name!r} in {found.file}: no setting {key!r}: "
                f"{did_you_mean(key, config.model_fields)}"
            )
        setting = copy(config.model_fields[key])
        setting.default = value
        fields[key] = (setting.annotation, setting)
    made = pydantic.create_model(config.__name__, __base__=config, __doc__=config.__doc__, **fields)
    described = {"__doc__": found.summary, "__module__": base.__module__}
    attributes = {**facts, **described, "Config": made, "registered_name": found.name}
    return type(base)(base.__name__, (base,), attributes)


# ---------------------------------------------------------------------------

_plugins: dict[Path, str] = {}


def _import_file(file: Path, name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception):
            raise BenchError(f"plugin {file}: {type(error).__name__}: {error}") from error
        raise
    return module


@cache
def _table() -> dict[str, dict[str, Entry]]:
    table: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
    for found in _discover():
        earlier = table[found.kind].get(found.name)
        if earlier is not None and (earlier.file, earlier.attribute) != (
            found.file,
            found.attribute,
        ):
            raise BenchError(
                f"{found.kind} {found.name!r} is registered twice, in {earlier.file} and "
                f"{found.file}: rename one"
            )
        table[found.kind][found.name] = found
    return table


def _discover() -> Iterator[Entry]:
    for room in ROOMS:
        yield from _scan_package(room)
    for group in ENTRY_POINT_GROUPS:
        for point in entry_points(group=group):
            module = point.value.partition(":")[0].strip()
            spec = importlib.util.find_spec(module)
            if spec is None or spec.origin is None:
                raise BenchError(
                    f"entry point {point.name!r} of group {group!r} names {module!r}, which is "
                    "not installed: reinstall or remove the package that declares it"
                )
            yield from _scan_file(Path(spec.origin), module, f"entry point {point.name}")
    for file, module in _plugins.items():
        yield from _scan_file(file, module, f"plugin {file}")


def _scan_package(package: str) -> Iterator[Entry]:
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
            yield from _scan_file(file, ".".join((package, *parts)), "bench")


def _scan_file(file: Path, module: str, origin: str) -> list[Entry]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise BenchError(f"{file}: not valid Python: {error}") from error
    found = []
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            named = _registration(decorator, file)
            if named is None:
                continue
            kind, name, given = named
            if kind not in KINDS:
                raise BenchError(
                    f"{file}:{node.lineno}: unknown kind {kind!r}; use one of {', '.join(KINDS)}"
                )
            doc = given.get("summary", ast.get_docstring(node) or "")
            summary = " ".join(doc.split("\n\n")[0].split())
            facts = {k: v for k, v in given.items() if k not in ("config", "summary")}
            facts = {**_literals(node), **facts}
            found.append(Entry(kind, name, module, node.name, file, summary, origin, facts, given))
    return found


def _registration(decorator: ast.expr, file: Path) -> tuple[str, str, dict[str, Any]] | None:
    """Kind, name and keywords of a call of ``register``; None for any other decorator."""
    if not isinstance(decorator, ast.Call) or len(decorator.args) != 2:
        return None
    function = decorator.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    kind, name = (getattr(argument, "value", None) for argument in decorator.args)
    if called != "register" or not (isinstance(kind, str) and isinstance(name, str)):
        return None
    try:
        given = {str(each.arg): ast.literal_eval(each.value) for each in decorator.keywords}
    except ValueError:
        raise BenchError(
            f"{file}:{decorator.lineno}: register takes literals by keyword; write them out"
        ) from None
    return kind, name, given


def _literals(node: ast.ClassDef | ast.FunctionDef) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target, value = statement.targets[0], statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            target, value = statement.target, statement.value
        else:
            continue
        if isinstance(target, ast.Name):
            try:
                facts[target.id] = ast.literal_eval(value)
            except ValueError:
                continue
    return facts
