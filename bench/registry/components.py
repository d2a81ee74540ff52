"""Find methods, models, data sets, streams, tasks, protocols, executors and reports by name.

A component registers itself where it is written::

    @register("method", "tent")
    class Tent(Method): ...

Discovery parses the source text of the rooms (``bench.methods``, ``bench.models``,
``bench.datasets``, ``bench.reports``), of the core's own tasks, protocols and executors, of the
modules named by installed entry points, and of plugin files; a component's module is imported when
it is loaded. A class of a notebook is found once `register` has been called with it.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import inspect
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import BenchError, did_you_mean
from bench.registry.declarations import DECLARED, require_declared, require_name, shortened
from bench.registry.discovery import (
    CONTRACTS,
    KINDS,
    Entry,
    discover,
    discover_installed,
    forget_sources,
    installed_points,
    scan_file,
    summary_of,
)
from bench.registry.foreign_import import foreign_import
from bench.registry.load_trace import traced
from bench.registry.moved import require_current_imports

T = TypeVar("T")

OWN_PACKAGE = "bench."
PLUGIN_PREFIX = "bench_plugin_"
RUN_TIME = "run time"


def register(
    kind: str, name: str, *, config: dict[str, Any] | None = None, **changes: Any
) -> Callable[[T], T]:
    """Register the decorated class or function as component ``name`` of ``kind``.

    In a file, all arguments must be literals: discovery reads them from the source text. One class
    may be registered under several names: each further one gives what differs under it.

    Parameters
    ----------
    config : settings whose defaults differ from those of the class's ``Config``
    changes : class attributes that differ, as ``provenance`` and ``paper``; ``summary`` stands in
        the place of the docstring
    """
    if kind not in KINDS:
        raise BenchError(f"register: unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    require_name(kind, name, "register")

    def mark(thing: T) -> T:
        if not (config or changes):
            thing.registered_name = name  # type: ignore[attr-defined]
        module = getattr(thing, "__module__", "")
        if not _importing and not module.startswith((OWN_PACKAGE, PLUGIN_PREFIX)):
            given = {k: v for k, v in changes.items() if k != "summary"}
            facts = {n: getattr(thing, n) for n in dir(thing) if _is_fact(thing, n)} | given
            summary = changes.get("summary") or summary_of(getattr(thing, "__doc__", None))
            place = (module, getattr(thing, "__qualname__", name), None, summary, RUN_TIME)
            _run_time[kind, name] = Entry(kind, name, *place, facts, config or {}, given, thing)
        return thing

    return mark


def add_plugin(path: str | Path) -> None:
    """Make the components of one Python file known to this process.

    Raises BenchError if the file is missing, does not parse or registers nothing.
    """
    file = Path(path).resolve()
    if not os.path.isfile(file):
        raise BenchError(f"plugin {path}: no such file; give the path of a Python file")
    if file in _plugins:
        return
    module = f"{PLUGIN_PREFIX}{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    if not scan_file(file, module, f"plugin {file}"):
        raise BenchError(
            f'plugin {path}: registers nothing; decorate a class with @register("method", "name") '
            "and import register from bench"
        )
    _plugins[file] = module
    _forget()


def plugins() -> list[Path]:
    """The plugin files added so far, for handing on to another process."""
    return list(_plugins)


def entries(kind: str) -> dict[str, Entry]:
    """All components of one kind by name, in alphabetical order."""
    known = dict(_table().get(kind, {}))
    for name, found in [(name, e) for (its_kind, name), e in _run_time.items() if its_kind == kind]:
        if name in known:
            raise BenchError(
                f"{kind} {name!r} is registered twice, in {known[name].file} and at run time "
                f"as {found.module}.{found.attribute}: rename one"
            )
        known[name] = found
    return dict(sorted(known.items()))


def entry(kind: str, name: str) -> Entry:
    """The component ``name`` of ``kind``; BenchError with the nearest names if unknown.

    ``NAME:VALUE`` is the component NAME with another default of the setting that its class
    declares as ``named_setting``.
    """
    known = entries(kind)
    base, colon, value = name.partition(":")
    if colon and base in known:
        setting = known[base].facts.get("named_setting")
        if not (setting and value):
            cure = f"write the {setting}, as {base}:NAME" if setting else f"write {base}"
            raise BenchError(f"{kind} {shortened(name)}: nothing to take behind the colon; {cure}")
        config = {**known[base].config, setting: value}
        return dataclasses.replace(known[base], name=name, config=config)
    if name not in known:
        broken = "".join(f"; {each}" for each in broken_entry_points())
        cure = f"{did_you_mean(name, known)} (of a file: --plugin FILE, or plugins: in the suite)"
        raise BenchError(f"unknown {kind} {shortened(name)}: {cure}{broken}")
    return known[name]


def load(kind: str, name: str) -> Any:
    """Import and return the component ``name`` of ``kind``."""
    found = entry(kind, name)
    thing = found.thing if found.thing is not None else getattr(_module(found), found.attribute, 0)
    named = CONTRACTS[kind]
    if named is not None:
        contract = getattr(importlib.import_module(named[0]), named[1])
        if not (isinstance(thing, type) and issubclass(thing, contract)):
            raise BenchError(
                f"{kind} {name!r} in {found.file or found.module}: {found.attribute} is not a "
                f"subclass of bench.{named[1]}"
            )
        _require_sound(found, thing)
    if not (found.config or found.changes):
        return thing
    changed = _changed(thing, found)
    if named is not None:
        _require_sound(found, changed)
    return changed


def broken_entry_points() -> list[str]:
    """Why entry points of installed packages give no components; everything else works."""
    return [str(each) for each in discover_installed() if isinstance(each, BenchError)]


@contextmanager
def isolated() -> Iterator[None]:
    """Forget inside and afterwards what is registered inside: plugins and run-time components."""
    stores: tuple[dict[Any, Any], ...] = (_plugins, _run_time)
    before = [dict(store) for store in stores]
    for store in stores:
        store.clear()
    _forget()
    try:
        yield
    finally:
        for store, held in zip(stores, before, strict=True):
            store.clear()
            store.update(held)
        _forget()


# ---------------------------------------------------------------------------

_plugins: dict[Path, str] = {}
_run_time: dict[tuple[str, str], Entry] = {}
_CONFIGS = {"dataset": "DataSet"}
"""Kinds whose settings classes are called otherwise than the kind, with a capital."""
_importing: list[str] = []
"""Components whose modules are being imported now: what these register was discovered."""
_variants: dict[tuple[Any, str], Any] = {}


def _forget() -> None:
    """Read again, when next asked, what files and installed packages say."""
    forget_sources()
    installed_points.cache_clear()
    _table.cache_clear()


def _is_fact(thing: Any, name: str) -> bool:
    plain = (str, int, float, bool, tuple, list, dict, type(None))
    return not name.startswith("_") and isinstance(getattr(thing, name, ...), plain)


def _module(found: Entry) -> Any:
    _importing.append(found.name)
    try:
        if found.origin != "bench" and found.file is not None:
            require_current_imports(found.file)
        if found.file in _plugins:
            return _import_file(found.file, found.module)
        place = f"{found.kind} {found.name!r} cannot be imported from {found.module}"
        with foreign_import(place, "; run 'bench doctor'"):
            if found.origin == "bench":
                return importlib.import_module(found.module)
            with traced():
                return importlib.import_module(found.module)
    finally:
        _importing.pop()


def _import_file(file: Path, name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with foreign_import(f"plugin {file}"), traced():
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _require_sound(found: Entry, thing: Any) -> None:
    """BenchError if a class declares what cannot be used; also what is computed is looked at."""
    where = str(found.file or found.module)
    values = {name: getattr(thing, name) for name in dir(thing) if _is_fact(thing, name)}
    for name in DECLARED.get(found.kind, ()):
        value = inspect.getattr_static(thing, name, None)
        if value is not None and not (callable(value) or hasattr(value, "__get__")):
            values[name] = getattr(thing, name)
    require_declared(found.kind, found.name, values, where)
    if found.kind not in ("task", "executor", "report"):
        import pydantic

        config = getattr(thing, "Config", None)
        if not (isinstance(config, type) and issubclass(config, pydantic.BaseModel)):
            raise BenchError(
                f"{where}: {found.kind} {found.name!r}: Config is {shortened(config)}: make it a "
                f"subclass of bench.{_CONFIGS.get(found.kind, found.kind.capitalize())}Config"
            )


def _changed(thing: Any, found: Entry) -> Any:
    """The class as it is under a further name: with other defaults and other declarations."""
    if (thing, found.name) not in _variants:
        import pydantic

        fields = {}
        for name, value in found.config.items():
            if name not in thing.Config.model_fields:
                raise BenchError(
                    f"{found.kind} {found.name!r}: config names {name!r}, which is not a setting "
                    f"of {thing.Config.__name__}"
                )
            field = copy.copy(thing.Config.model_fields[name])
            field.default = value
            fields[name] = (field.annotation, field)
        given = {"__base__": thing.Config, "__doc__": thing.Config.__doc__, **fields}
        module = {"__module__": thing.__module__}
        config = pydantic.create_model(thing.Config.__name__, **module, **given)
        facts = {"__doc__": found.summary, "Config": config, "registered_name": found.name}
        members = {**module, **facts, **found.changes}
        _variants[thing, found.name] = type(thing.__name__, (thing,), members)
    return _variants[thing, found.name]


@cache
def _table() -> dict[str, dict[str, Entry]]:
    table: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
    for found in discover(_plugins):
        earlier = table[found.kind].get(found.name)
        same = (found.file, found.attribute)
        if earlier is not None and (earlier.file, earlier.attribute) != same:
            raise BenchError(
                f"{found.kind} {found.name!r} is registered twice, in {earlier.file} and "
                f"{found.file}: rename one"
            )
        table[found.kind][found.name] = found
    for each in discover_installed():
        if isinstance(each, Entry):
            earlier = table[each.kind].setdefault(each.name, each)
            if (earlier.file, earlier.attribute) != (each.file, each.attribute):
                raise BenchError(
                    f"{each.kind} {each.name!r} is registered twice, in {earlier.file} and "
                    f"{each.file} ({each.origin}): rename one, or remove its package"
                )
    return table
