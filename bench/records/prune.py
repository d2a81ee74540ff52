"""What a store holds that nothing needs any more: results of older code, logs of earlier attempts.

A record goes where one of the same cell but for code, device profile and core version was started
later, and never for one that says less: not ``ok`` for anything else, no result for a failure.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.io.atomic_write import STALE_S
from bench.io.digest import digest
from bench.io.one_line import one_line
from bench.records.export_files import log_file
from bench.records.record import FAILURES
from bench.records.store import Store
from bench.records.summary import RecordSummary

UNREADABLE = ".json.unreadable"
"""In the name of a file that a record of its cell has replaced, see `Store.write`."""


@dataclass(frozen=True)
class Needless:
    """A file that nothing needs: its state when that was found, and why."""

    path: Path
    why: str
    size: int
    changed_ns: int

    def __str__(self) -> str:
        return one_line(f"{self.path}: {self.why}")


def needless(store: Store) -> list[Needless]:
    """The files of a store that nothing needs, in the order of their names.

    Records of older code with their logs; files that were no records and were replaced by one; logs
    that no record names and nobody wrote for a day, as those of earlier attempts: younger ones may
    be of runs that go on. Where files cannot be read as records, no log is needless: they may name
    it.
    """
    records = list(store.summaries())
    older = {record.identity: newer for record, newer in _older(records)}
    found = [
        _seen(store.path(identity), f"older code: {newer.cell.title} ran again with newer code")
        for identity, newer in older.items()
    ]
    kept = {r.log for r in records if r.identity not in older}
    gone = [r for r in records if r.identity in older and r.log not in kept]
    logs = [path for r in gone if (path := log_file(store, r.log))]
    found += [_seen(path, "log of a record of older code") for path in logs]
    found += [_seen(p, "was no record, and was replaced by one") for p in _replaced(store)]
    if not store.unreadable:
        named = {record.log for record in records}
        found += [
            _seen(path, "log that no record names")
            for path in store.logs.glob("*.log")
            if f"{store.logs.name}/{path.name}" not in named
            and log_file(store, f"{store.logs.name}/{path.name}")
            and time.time() - path.lstat().st_mtime > STALE_S
        ]
    return sorted((each for each in found if each is not None), key=lambda each: each.path)


def remove(store: Store, files: Sequence[Needless]) -> list[Needless]:
    """Remove files that are still as they were found; those that were removed.

    Raises BenchError if one cannot be removed.
    """
    done = []
    try:
        with store.locked():
            for each in files:
                if _seen(each.path, each.why) == each:
                    each.path.unlink()
                    done.append(each)
    except OSError as error:
        raise BenchError(
            f"store {store.root}: {error.filename or 'a file'} cannot be removed: "
            f"{error.strerror or error}; {len(done)} files were"
        ) from error
    return done


def _older(records: Iterable[RecordSummary]) -> Iterator[tuple[RecordSummary, RecordSummary]]:
    """Records of older code, each with the newest of its cell."""
    keys: dict[str, str] = {}
    groups: dict[tuple[str, int, int], list[RecordSummary]] = defaultdict(list)
    for record in records:
        template = record.template
        if template.key not in keys:
            keys[template.key] = digest(_without_code(template.content))
        groups[keys[template.key], record.seed, record.source_draw].append(record)
    for group in groups.values():
        *before, newest = sorted(group, key=lambda r: (r.started, r.identity))
        for record in before:
            if _rank(newest) >= _rank(record):
                yield record, newest


def _rank(record: RecordSummary) -> int:
    """How much a record says: a failure nothing, that a method does not apply or fit something."""
    return 2 if record.status == "ok" else int(record.status not in FAILURES)


def _without_code(content: dict[str, Any]) -> dict[str, Any]:
    """A cell without what names versions; ``content``: as `Template` has it."""
    versions = ("code", "device_digest", "core")
    return {
        name: _without_code(value) if isinstance(value, dict) and name != "config" else value
        for name, value in content.items()
        if name not in versions
    }


def _replaced(store: Store) -> Iterator[Path]:
    with suppress(OSError):
        for path in store.records.iterdir():
            name, mark, _ = path.name.partition(UNREADABLE)
            if mark and (store.records / f"{name}.json").is_file():
                yield path


def _seen(path: Path, why: str) -> Needless | None:
    """A file as it is now; None if it is gone."""
    try:
        state = os.lstat(path)
    except OSError:
        return None
    return Needless(path, why, state.st_size, state.st_mtime_ns)
