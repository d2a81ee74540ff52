"""What was read of source files, kept in the cache: parsing them takes longer than using them.

Kept is what follows from contents alone, under the digest of these contents, so that nothing kept
can be out of date; it may be removed at any time, and a cache that cannot be written is none.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.io.atomic_write import write_atomically
from bench.io.weights_cache import cache_folder

FOLDER = "sources"
MOST = 8
"""Files that are kept of one kind: of other versions, and of other installations."""
UNREADABLE = (OSError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError)


def contents_key(folders: Iterable[Path]) -> str:
    """Digest of this Python's version and of all Python files in some folders, and their places."""
    found = hashlib.sha256(sys.version.encode())
    for file in sorted({file for folder in folders for file in folder.rglob("*.py")}):
        content = file.read_bytes()
        found.update(f"\0{file}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()[:32]


def kept(kind: str, key: str, make: Callable[[], Any]) -> Any:
    """The literal that ``make`` gives; what it gave before for the same ``key``."""
    path = cache_folder() / FOLDER / f"{kind}-{key}.txt"
    with suppress(*UNREADABLE):
        return ast.literal_eval(path.read_text(encoding="utf-8"))
    made = make()
    text = repr(made)
    with suppress(*UNREADABLE):
        if ast.literal_eval(text) == made:
            _write(path, kind, text)
    return made


class KeptTable:
    """JSON values by the digests of contents, of one ``kind`` and program (``key``)."""

    def __init__(self, kind: str, key: str) -> None:
        self._kind, self._path = kind, cache_folder() / FOLDER / f"{kind}-{key}.json"
        self._known: dict[str, Any] = {}
        self._new = False
        with suppress(*UNREADABLE):
            read = json.loads(self._path.read_bytes())
            self._known = read if isinstance(read, dict) else {}

    def get(self, content: bytes, make: Callable[[], Any]) -> Any:
        """The value of a content, which `save` keeps."""
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._known:
            self._known[digest] = make()
            self._new = True
        return self._known[digest]

    def save(self) -> None:
        """Keep what is new."""
        if self._new:
            self._new = False
            with suppress(*UNREADABLE):
                _write(self._path, self._kind, json.dumps(self._known))


def _write(path: Path, kind: str, text: str) -> None:
    write_atomically(path, text.encode())
    others = sorted(path.parent.glob(f"{kind}-*"), key=lambda each: each.stat().st_mtime)
    for old in others[:-MOST]:
        old.unlink(missing_ok=True)
