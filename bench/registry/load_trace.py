"""What code reads while it is loaded, where its text does not say so: for `component_code`.

A plugin may reach code by a computed name or path (``importlib.import_module(f"knobs_{n}")``,
``runpy.run_path``, ``exec`` of a file's text) or read numbers from a file beside it. Python reports
each file that is opened (PEP 578); it is booked to the file of the code that asked for it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from bench.registry.code_files import is_installed
from bench.registry.find_module import origin_of

CODE = (".py", ".so", ".pyd")

_opened: dict[str, set[tuple[str, bool]]] = defaultdict(set)
"""By the file of the code that asked: paths, and whether an import was going on."""
_written: set[str] = set()
_depth = 0
_hooked = False


@contextmanager
def traced() -> Iterator[None]:
    """Book what is opened and imported inside."""
    global _depth, _hooked
    if not _hooked:
        _counted(__file__)  # imports what it needs before anything is booked
        sys.addaudithook(_hear)  # for the life of the process; it is silent outside
        _hooked = True
    plain = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        module = plain(name, package)
        origin = origin_of(module)
        if origin is not None:
            _opened[os.path.realpath(sys._getframe(1).f_code.co_filename)].add((str(origin), True))
        return module

    importlib.import_module = import_module
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        importlib.import_module = plain


def files_read_by(file: Path) -> list[Path]:
    """What the code of ``file`` opened while it was loaded, and that counts as part of it.

    Code of any place but the standard library and installed packages, and other files in the
    folder of ``file`` that were only read.
    """
    found = set()
    for name, importing in _opened[str(file)]:
        path = Path(name)
        if path.suffix == ".pyc":
            path = _source(path)
        path = path.resolve()
        if path == file or is_installed(path) or not path.is_file():
            continue
        if path.suffix in CODE or not (importing or name in _written or _elsewhere(path, file)):
            found.add(path)
    return sorted(found)


def _source(compiled: Path) -> Path:
    try:
        source = Path(importlib.util.source_from_cache(compiled))
    except ValueError:
        return compiled
    return source if source.is_file() else compiled


def _elsewhere(path: Path, file: Path) -> bool:
    """Whether a path lies outside the folder of ``file``, or in a hidden folder of it."""
    if not path.is_relative_to(file.parent):
        return True
    return any(part.startswith(".") for part in path.relative_to(file.parent).parts)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not _depth:
        return
    path, mode, flags = arguments
    if not isinstance(path, str | bytes | os.PathLike) or "\0" in os.fsdecode(path):
        return
    name = os.path.abspath(os.fsdecode(path))
    if any(c in "wax+" for c in mode) if mode else flags & (os.O_WRONLY | os.O_RDWR):
        _written.add(name)
        return
    importing = False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        asked = frame.f_code.co_filename
        importing = importing or asked.startswith("<frozen importlib")
        if _counted(asked):
            _opened[os.path.realpath(asked)].add((name, importing))
            return
        frame = frame.f_back


@cache
def _counted(code_file: str) -> bool:
    return os.path.isabs(code_file) and not is_installed(Path(code_file))
