"""Bring records of other stores into one: a record is named by what it is of, so it is copied."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.records.record import Record
from bench.records.store import Store


@dataclass
class Merged:
    """What became of the records of other stores.

    ``counts``: copied, replaced (an ``ok`` instead of another status), kept (the other way round),
    or equal. ``conflicts``: a line for each cell with two different records of which neither wins;
    this store's stays.
    """

    counts: Counter[str] = field(default_factory=Counter)
    conflicts: list[str] = field(default_factory=list)


def merge(into: Store, others: Sequence[Store]) -> Merged:
    """Copy the records of other stores, with the logs that they name; nothing of these changes.

    Files that are no records stay where they are and are in ``unreadable`` of their store. Raises
    BenchError if the store cannot be written, or is one of the others.
    """
    done = Merged()
    for other in others:
        if os.path.realpath(other.root) == os.path.realpath(into.root):
            raise BenchError(f"store {other.root}: is the one to merge into; name others")
        for record in other:
            verdict = _verdict(into.get(record.identity), record)
            if verdict == "conflict":
                done.conflicts.append(
                    f"{record.cell.title}: {other.path(record.identity)} and "
                    f"{into.path(record.identity)} differ; the second stays"
                )
                continue
            if verdict in ("copied", "replaced"):
                _copy_log(record, other, into)
                into.write(record)
            done.counts[verdict] += 1
    return done


def _verdict(ours: Record | None, theirs: Record) -> str:
    if ours is None:
        return "copied"
    if ours == theirs:
        return "equal"
    if (ours.status == "ok") != (theirs.status == "ok"):
        return "kept" if ours.status == "ok" else "replaced"
    return "conflict"


def _copy_log(record: Record, other: Store, into: Store) -> None:
    """A run's output, under the same name; a record whose log is gone is copied without."""
    source, target = other.log_path(record.run), into.log_path(record.run)
    if os.path.basename(record.run) != record.run or target.exists():
        return  # a name that leaves the folder is nobody's run
    try:
        content = source.read_bytes()
    except OSError:
        return
    try:
        write_atomically(target, content)
    except OSError as error:
        raise BenchError(
            f"log {target}: cannot be written: {error.strerror or error}; free space or merge into "
            "another store"
        ) from error
