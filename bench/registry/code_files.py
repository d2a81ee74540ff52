"""Which files an import reaches, and which of them count as the code of a component.

Counted are modules outside the standard library, outside installed packages and outside the core:
those of the rooms, of a plugin's folder, of ``PYTHONPATH`` and of editable installs. Of installed
packages those count that register components.
"""

from __future__ import annotations

import importlib
import json
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.registry.discovery import ENTRY_POINT_GROUPS, installed_points
from bench.registry.find_module import below, file_of, origin_of, spec_in, top_spec

ROOMS = ("bench.methods", "bench.models", "bench.datasets", "bench.reports")
"""Code outside the core that a component may import, and that then counts as part of it."""


def imported_files(module: str, level: int, importer: Path) -> list[Path]:
    """The files that count among those that importing a module runs, outer packages first.

    ``level`` as in `ast.ImportFrom`: 0 for an absolute name, else the dots before it. Nothing is
    imported. BenchError if another module of that name was imported from another place.
    """
    if level or module == "bench" or module.startswith("bench."):
        return _of_project(module, importer.parents[level - 1] if level else None)
    return _counted(_on_path(module, importer))


@cache
def _of_project(module: str, folder: Path | None) -> list[Path]:
    return _counted(_in_room(module) if folder is None else below([folder], module))


def _counted(found: Path | None) -> list[Path]:
    return [*packages(found), found] if found is not None and counts(found) else []


def packages(file: Path) -> list[Path]:
    """The ``__init__.py`` of each package that a module's file lies in: importing runs them too."""
    found = []
    rooms = room_folders()
    for folder in file.parents if file.name != "__init__.py" else file.parents[1:]:
        if folder in rooms or not (folder / "__init__.py").is_file():
            break
        found.append(folder / "__init__.py")
    return found[::-1]


def counts(file: Path) -> bool:
    """Whether a file is code of a component, and neither of the core nor of a library."""
    if any(file.is_relative_to(folder) for folder in room_folders()):
        return True
    return not is_installed(file) or installed_plugin(file) is not None


@cache
def room_folders() -> frozenset[Path]:
    """The folders of the rooms."""
    return frozenset(location for room in ROOMS for location in _locations(room))


@cache
def is_installed(file: Path) -> bool:
    """Whether a file is of the standard library, of an installed package or of this project."""
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(folder) for folder in _installed_folders())


@cache
def _installed_folders() -> frozenset[Path]:
    paths = sysconfig.get_paths()
    named = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    named += [*site.getsitepackages(), site.getusersitepackages()]
    here = Path(__file__).parents[1]  # of the core
    folders = {here, *room_folders(), *map(Path, named)}
    return frozenset({*folders, *(folder.resolve() for folder in folders)})


def _in_room(module: str) -> Path | None:
    for room in ROOMS:
        if module == room or module.startswith(f"{room}."):
            return below(_locations(room), module[len(room) + 1 :])
    return None


def _on_path(module: str, importer: Path) -> Path | None:
    """The file of an absolute module: as it was imported, else as it would be, else beside."""
    top, _, rest = module.partition(".")
    if (top, tuple(sys.path)) in _libraries:
        return None
    spec = top_spec(top) or spec_in(top, [importer.parent])
    if spec is None:
        return None
    file = file_of(spec)
    if file is None and spec.submodule_search_locations is None:  # built in
        _libraries.add((top, tuple(sys.path)))
    if file is not None and not counts(file):
        _libraries.add((top, tuple(sys.path)))
        return None
    _require_one(top, file, importer)
    if module in sys.modules and (found := origin_of(sys.modules[module])) is not None:
        return found
    return below(list(spec.submodule_search_locations or ()), rest) if rest else file


_libraries: set[tuple[str, tuple[str, ...]]] = set()
"""Modules that were found to be no code of a component, each with the path that was searched."""


def _require_one(top: str, loaded: Path | None, importer: Path) -> None:
    """Two plugins, each with a module of one name beside it: Python would give both the first."""
    if loaded is None or top not in sys.modules:
        return
    if importer.parent not in [Path(each).resolve() for each in sys.path]:
        return
    beside = spec_in(top, [importer.parent])
    other = None if beside is None else file_of(beside)
    if other is not None and other != loaded:
        raise BenchError(
            f"{importer} imports {top!r}, of which there are two: {loaded}, which was imported "
            f"first, and {other}; rename one of them"
        )


@cache
def _locations(room: str) -> list[Path]:
    try:
        package = importlib.import_module(room)  # an empty package: this imports nothing heavy
    except ModuleNotFoundError:
        return []
    return [Path(location).resolve() for location in package.__path__]


# --- installed packages that register components ----------------------------------------


def installed_plugin(file: Path) -> Distribution | None:
    """The installed package that a file belongs to, if it registers components."""
    for root, package in _plugin_packages().items():
        if file.is_relative_to(root):
            return package
    return None


def package_content(package: Distribution) -> list[Any]:
    """Name, version and what the package's RECORD says of its files, on every machine alike.

    Of an editable install only the name: its files are found, and count, where they lie.
    """
    if _editable(package):
        return [package.name]
    return [package.name, package.version, sorted(_recorded(package))]


def _recorded(package: Distribution) -> Iterator[list[str]]:
    for path in package.files or ():
        own = ".." in path.parts or path.parts[0].endswith((".dist-info", ".egg-info"))
        if path.hash is not None and not own:  # scripts name the interpreter of this machine
            yield [path.as_posix(), f"{path.hash.mode}:{path.hash.value}"]


def _editable(package: Distribution) -> bool:
    said = package.read_text("direct_url.json")
    return bool(said and json.loads(said).get("dir_info", {}).get("editable"))


@cache
def _plugin_packages() -> dict[Path, Distribution]:
    """By the file or folder that it put into site-packages: each package with our entry points."""
    points = [p for group in ENTRY_POINT_GROUPS for p in installed_points().select(group=group)]
    found: dict[Path, Distribution] = {}
    for package in {point.dist.name: point.dist for point in points if point.dist}.values():
        if not _editable(package):
            tops = {Path(path).parts[0] for path, _ in _recorded(package)}
            found |= {Path(str(package.locate_file(top))).resolve(): package for top in tops}
    return found
