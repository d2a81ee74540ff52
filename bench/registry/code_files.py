"""Which files an import reaches, and which of them count as the code of a component.

Counted are modules outside the standard library, outside installed packages and outside the core:
those of the rooms, of a plugin's folder, of ``PYTHONPATH`` and of editable installs. Of installed
packages those count that register components.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.metadata import Distribution, entry_points
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.registry.discovery import ENTRY_POINT_GROUPS

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
    return _counted(_in_room(module) if folder is None else _below([folder], module))


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


def origin_of(module: Any) -> Path | None:
    """The file that a module was made from; None for one without."""
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    origin = origin or getattr(module, "__file__", None)
    return _existing(origin)


# --- finding a module without importing it ---------------------------------------------


def _below(folders: list[str] | list[Path], module: str) -> Path | None:
    """The file of ``module`` in one of some folders; of the folder itself for no name."""
    places = [str(folder) for folder in folders]
    found = next((f for p in places if (f := Path(p, "__init__.py")).is_file()), None)
    for part in module.split(".") if module else ():
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return None
        found = _existing(spec.origin)
        places = list(spec.submodule_search_locations or ())
    return found.resolve() if found is not None else None


def _in_room(module: str) -> Path | None:
    for room in ROOMS:
        if module == room or module.startswith(f"{room}."):
            return _below(_locations(room), module[len(room) + 1 :])
    return None


def _on_path(module: str, importer: Path) -> Path | None:
    """The file of an absolute module: as it was imported, else as it would be, else beside."""
    top, _, rest = module.partition(".")
    if (top, tuple(sys.path)) in _libraries:
        return None
    spec = _top(top) or importlib.machinery.PathFinder.find_spec(top, [str(importer.parent)])
    if spec is None:
        return None
    file = _file(spec)
    if file is None and spec.submodule_search_locations is None:  # built in
        _libraries.add((top, tuple(sys.path)))
    if file is not None and not counts(file):
        _libraries.add((top, tuple(sys.path)))
        return None
    _require_one(top, file, importer)
    if module in sys.modules and (found := origin_of(sys.modules[module])) is not None:
        return found
    return _below(list(spec.submodule_search_locations or ()), rest) if rest else file


_libraries: set[tuple[str, tuple[str, ...]]] = set()
"""Modules that were found to be no code of a component, each with the path that was searched."""


def _top(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except Exception:  # a module without a spec, or a finder of somebody else's that fails
        return None


def _file(spec: importlib.machinery.ModuleSpec) -> Path | None:
    found = _existing(spec.origin)
    return found.resolve() if found is not None else None


def _require_one(top: str, loaded: Path | None, importer: Path) -> None:
    """Two plugins, each with a module of one name beside it: Python would give both the first."""
    if loaded is None or top not in sys.modules:
        return
    if importer.parent not in [Path(each).resolve() for each in sys.path]:
        return
    beside = importlib.machinery.PathFinder.find_spec(top, [str(importer.parent)])
    other = None if beside is None else _file(beside)
    if other is not None and other != loaded:
        raise BenchError(
            f"{importer} imports {top!r}, of which there are two: {loaded}, which was imported "
            f"first, and {other}; rename one of them"
        )


def _existing(origin: str | None) -> Path | None:
    """The file of a module's origin, or the archive that it lies in."""
    if not origin:
        return None
    path = Path(origin)
    return next((p.resolve() for p in (path, *path.parents) if p.is_file()), None)


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
    points = [point for group in ENTRY_POINT_GROUPS for point in entry_points(group=group)]
    found: dict[Path, Distribution] = {}
    for package in {point.dist.name: point.dist for point in points if point.dist}.values():
        if not _editable(package):
            tops = {Path(path).parts[0] for path, _ in _recorded(package)}
            found |= {Path(str(package.locate_file(top))).resolve(): package for top in tops}
    return found
