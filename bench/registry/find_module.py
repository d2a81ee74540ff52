"""Find the file of a module without importing anything, not even the packages that it lies in."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any


def find_module(module: str) -> Path | None:
    """The file of an absolute module: as it was imported, else as it would be; None if unknown."""
    if module in sys.modules and (found := origin_of(sys.modules[module])) is not None:
        return found
    top, _, rest = module.partition(".")
    spec = top_spec(top)
    if spec is None:
        return None
    return below(list(spec.submodule_search_locations or ()), rest) if rest else file_of(spec)


def top_spec(name: str) -> ModuleSpec | None:
    """What Python's finders say of a module that lies in no package; None if they know none."""
    try:
        return importlib.util.find_spec(name)
    except Exception:  # a module without a spec, or a finder of somebody else's that fails
        return None


def spec_in(name: str, folders: Sequence[str | Path]) -> ModuleSpec | None:
    """The module or package of a name in one of some folders."""
    return PathFinder.find_spec(name, [str(folder) for folder in folders])


def below(folders: Sequence[str | Path], module: str) -> Path | None:
    """The file of a dotted ``module`` in one of some folders; of no name, of the folder itself."""
    found = next((f for p in folders if (f := Path(p, "__init__.py")).is_file()), None)
    for part in module.split(".") if module else ():
        spec = spec_in(part, folders)
        if spec is None:
            return None
        found = file_of(spec)
        folders = list(spec.submodule_search_locations or ())
    return found.resolve() if found is not None else None


def origin_of(module: Any) -> Path | None:
    """The file that a module was made from; None for one without."""
    origin = getattr(getattr(module, "__spec__", None), "origin", None)
    return _existing(origin or getattr(module, "__file__", None))


def file_of(spec: ModuleSpec) -> Path | None:
    """The file that a module would be made from."""
    return _existing(spec.origin)


def _existing(origin: Any) -> Path | None:
    """The file of a module's origin, or the archive that it lies in."""
    if not isinstance(origin, str) or not origin:
        return None
    path = Path(origin)
    return next((p.resolve() for p in (path, *path.parents) if p.is_file()), None)
