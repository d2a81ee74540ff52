"""The index of a store: summaries of records that were read before, so that they need not be again.

``STORE/index.jsonl`` is derived and never the truth: it may be deleted at any time, and a store
that cannot be written is read without one. Each line is the SHA-256 of a JSON object and that
object: summaries of some files, and the parts that they share; later lines replace earlier ones.
Lines are only ever appended, and the whole file replaced when most of it is out of date. So nothing
is locked: what two processes that write at once lose of each other is read from the records again,
and a line that is damaged, half written, or from another version of the reader counts as none.

Every look at the store lists the folder and asks the system for each file's state: size, time of
change of the content and of the file (mtime and ctime, in ns) and inode. Noticed are records that
were added, removed, replaced or edited in any way, times that were set back included, since a
program cannot set the ctime. Not noticed is content that changes without the file system knowing:
bits that rot on the disk (``bench store check`` reads everything). A file that changed within the
last `SETTLED_NS` is not indexed yet: it may change again within one tick of the clock of its file
system. Where that clock is ahead of this machine's, files wait longer for being indexed.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pydantic

from bench.io.atomic_write import write_atomically
from bench.records.summary import RecordSummary, Template

FILE = "index.jsonl"
SETTLED_NS = 3_000_000_000
"""Longer than the tick of any file system's clock: FAT has 2 s."""
BATCH = 5000
"""Records of a line: what is lost where a command is killed while it reads a store first."""
MOST_LINES = 256
STATE = 4
"""Values of a row that are the file's state."""

Row = list[Any]
"""A file's state, why it is no record (None if it is one), and the fields of its summary."""
Read = Callable[[Path], RecordSummary | str | None]
"""The summary of a file; why it is no record; None if it is gone or could be read another time."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the garbage collector, which looks at all earlier records again and again."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


class Index:
    """The index of the records in a folder; ``read`` reads what it does not know."""

    def __init__(self, file: Path, records: Path, read: Read) -> None:
        self._file, self._records, self._read = file, records, read
        self._rows: dict[str, Row] = {}
        self._parts: dict[str, Any] = {}
        self._templates: dict[str, Template] = {}
        self._lines = self._stale = 0
        with collector_paused():
            self._load()

    def summaries(self) -> Iterator[tuple[str, RecordSummary | str]]:
        """The name of each record file, in order, and its summary or why it is no record."""
        now = time.time_ns()
        new: dict[str, Row] = {}
        added = 0
        names = record_names(self._records)
        folder = os.path.join(self._records, "")  # a Path of each file takes longer than its state
        for name in names:
            try:
                state = _state(folder + name)
            except OSError:
                state = None
            row = self._rows.get(name)
            if row is None or row[:STATE] != state:
                found = self._read(self._records / name)
                if found is None:
                    continue
                row = [*(state or [0] * STATE), *self._fields(found)]
                if state is not None and max(state[1:3]) < now - SETTLED_NS:
                    new[name] = row
                    added += 1
                    if len(new) >= BATCH:
                        self._append(new)
                        new = {}
            reason = row[STATE]
            yield name, self._summary(name, row) if reason is None else reason
        self._append(new)
        self._shrink(names, added)

    def _fields(self, found: RecordSummary | str) -> Row:
        if isinstance(found, str):
            return [found]
        template = found.template
        self._parts.setdefault(template.key, [template.suite, template.content])
        key = hashlib.sha256(found.windows_json.encode()).hexdigest()[:16]
        self._parts.setdefault(key, found.windows_json)
        return [
            None, template.key, found.seed, found.source_draw, found.status, found.reason,
            found.started, found.wall_s, found.log, key,
        ]  # fmt: skip

    def _summary(self, name: str, row: Row) -> RecordSummary:
        key = row[STATE + 1]
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = Template(key, *self._parts[key])
        windows = self._parts[row[-1]]
        own = row[STATE + 2 : -1]
        return RecordSummary._make([name.removesuffix(".json"), template, *own, windows])

    def _load(self) -> None:
        try:
            lines = self._file.read_bytes().split(b"\n")
        except OSError:
            return
        for line in filter(None, lines):
            self._lines += 1
            content = _unsealed(line)
            if content is None:
                self._stale += BATCH  # nobody knows how much it was: write the file anew soon
                continue
            self._parts |= content["parts"]
            self._stale += len(content["rows"].keys() & self._rows.keys())
            self._rows |= content["rows"]

    def _append(self, rows: dict[str, Row]) -> None:
        """Add a line; without effect where the store cannot be written."""
        if not rows:
            return
        self._stale += len(rows.keys() & self._rows.keys())
        self._rows |= rows
        self._lines += 1
        with suppress(OSError):
            # In one piece at the end, wherever that is by then; on a line of its own even after
            # one that a process left half written. Colleagues who share the store write it too.
            handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, b"\n" + self._sealed(rows) + b"\n")
            finally:
                os.close(handle)

    def _shrink(self, names: list[str], added: int) -> None:
        """Write the file anew, without what is out of date, if that is most of it.

        Also if most rows were ``added`` just now in several lines, which repeat what they share.
        """
        stale = self._stale + len(self._rows.keys() - set(names))
        repeats = added > len(names) / 2 and self._lines > 1
        if self._lines <= MOST_LINES and stale < max(len(names), BATCH) and not repeats:
            return
        kept = {name: self._rows[name] for name in names if name in self._rows}
        self._rows, self._lines, self._stale = kept, 1, 0
        with suppress(OSError):
            write_atomically(self._file, self._sealed(kept) + b"\n")

    def _sealed(self, rows: dict[str, Row]) -> bytes:
        """A line: with all the parts of its rows, whatever becomes of the others."""
        keys = {key for row in rows.values() if row[STATE] is None for key in (row[5], row[-1])}
        parts = {key: self._parts[key] for key in sorted(keys)}
        content = {"reader": _reader(), "parts": parts, "rows": rows}
        text = json.dumps(content, separators=(",", ":")).encode()
        return hashlib.sha256(text).hexdigest().encode() + b" " + text


def record_names(folder: Path) -> list[str]:
    """Names of the files that may be records, sorted; none if there is no such folder."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError:
        return []


def _state(path: str) -> Row:
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """What a line holds; None if it is damaged or from another reader."""
    seal, _, text = line.partition(b" ")
    if hashlib.sha256(text).hexdigest().encode() != seal:
        return None
    content: dict[str, Any] = json.loads(text)
    return content if content.get("reader") == _reader() else None


@cache
def _reader() -> str:
    """Names the program that decides what a record is and what its summary holds."""
    found = hashlib.sha256(pydantic.VERSION.encode())
    folder = Path(__file__).parent
    for file in [*sorted(folder.glob("*.py")), folder.parent / "io" / "digest.py"]:
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
