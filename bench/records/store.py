"""The store: one JSON file a record, written atomically; nothing else is the truth."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError
from bench.io.atomic_write import staged
from bench.records.index import FILE, Index, collector_paused, record_names
from bench.records.reading import read_record, reason
from bench.records.record import Record
from bench.records.summary import RecordSummary, summarize

LOCK_S = 300.0
"""Longest that a writer waits for the others, each of which needs milliseconds."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What a file system answers that has no locks."""


class Store:
    """Records under ``root/records/``, logs under ``root/logs/``.

    Safe for many writers on a shared file system: a record is a file of its own, named by the
    cell's identity, and appears whole; which of two records of a cell stands is decided under
    a lock. Files that are no records (see `bench.records.reading`) are left alone and reported:
    ``unreadable`` has the reason by path, for all files read so far. ``index``: where the index of
    `summaries` is kept, by default in the store; elsewhere by who must not write there.
    """

    def __init__(self, root: str | Path, index: Path | None = None) -> None:
        self.root = Path(root)
        self._index = index or self.root / FILE
        self.unreadable: dict[Path, str] = {}

    @property
    def records(self) -> Path:
        """The folder of record files."""
        return self.root / "records"

    @property
    def logs(self) -> Path:
        """The folder of the runs' output."""
        return self.root / "logs"

    def path(self, identity: str) -> Path:
        """Where the record of a cell stands."""
        return self.records / f"{identity}.json"

    def log_path(self, run: str) -> Path:
        """Where the output of a run stands."""
        return self.logs / f"{run}.log"

    def get(self, identity: str) -> Record | None:
        """The record of a cell, or None; a file that cannot be read counts as none."""
        return self._read(self.path(identity))

    def write(self, record: Record) -> Path:
        """Write a record over an earlier one of the same cell; raises BenchError if impossible.

        A result is never lost to a failure: where an ``ok`` record stands and this one is not,
        nothing is written, nor where one is ``interrupted`` that was to replace a result such as
        out of memory on the device.
        """
        path = self.path(record.identity)
        try:
            with staged(path, record.model_dump_json(indent=1).encode()) as publish, self.locked():
                if not self._stands_against(record):
                    publish()
        except OSError as error:
            raise BenchError(
                f"record {path}: cannot be written: {error.strerror or error}; free space or "
                "choose another --store"
            ) from error
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from deciding about this store's files; of milliseconds, not nested.

        Without effect on a file system that has no locks. Raises OSError if the lock cannot be
        used, or is not free within `LOCK_S`.
        """
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        file = self.root / ".lock"
        # For colleagues who share the store too.
        lock = FileLock(file, LOCK_S, mode=0o666, thread_local=False)
        try:
            lock.acquire(poll_interval=0.005)
        except Timeout as error:
            raise OSError(
                f"{file} was not free for {LOCK_S:g} s; end the process that holds it"
            ) from error
        except NotImplementedError:
            pass
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            yield
        finally:
            lock.release()

    def warnings(self) -> list[str]:
        """One line for each file that is ignored, and one that counts them."""
        lines = [
            f"record {path if str(path).isprintable() else repr(str(path))} cannot be read and is "
            f"ignored: {why}"
            for path, why in self.unreadable.items()
        ]
        cure = "move them elsewhere; 'bench run' runs cells without a record"
        return [*lines, f"{self.count_ignored()}: {cure}"] if lines else []

    def count_ignored(self) -> str:
        """How many files are ignored, in words; empty if none is."""
        n = len(self.unreadable)
        return f"{n} {'file' if n == 1 else 'files'} in {self.records} ignored" if n else ""

    def __iter__(self) -> Iterator[Record]:
        """All readable records in the order of their file names."""
        for name in record_names(self.records):
            record = self._read(self.records / name)
            if record is not None:
                yield record

    def read(self, identities: Iterable[str]) -> list[Record]:
        """The records of these cells that can be read, in this order; quick for many."""
        with collector_paused():
            found = [self.get(identity) for identity in identities]
        return [record for record in found if record is not None]

    def summaries(self) -> Iterator[RecordSummary]:
        """What `summarize` tells of all readable records, in the same order.

        Records that the index knows are not read again, see `bench.records.index`.
        """
        self.unreadable.clear()
        index = Index(self._index, self.records, self._summarized)
        with collector_paused():
            summaries = list(index.summaries())
        for name, found in summaries:
            if isinstance(found, str):
                self.unreadable[self.records / name] = found
            else:
                yield found

    def _stands_against(self, record: Record) -> bool:
        """Whether an earlier record stays; one that cannot be read is kept under another name."""
        path = self.path(record.identity)
        earlier = self._read(path)
        if earlier is not None:
            if record.status == "interrupted":
                return not earlier.is_failure
            return earlier.status == "ok" and record.status != "ok"
        if os.path.lexists(path):
            names = (f"{path.name}.unreadable{f'-{n}' if n else ''}" for n in itertools.count())
            path.rename(next(p for n in names if not os.path.lexists(p := path.with_name(n))))
        return False

    def _summarized(self, path: Path) -> RecordSummary | str | None:
        try:
            return summarize(read_record(path))
        except ValueError as error:
            return reason(error)
        except (OSError, RecursionError, MemoryError) as error:  # another time it may be read
            if os.path.lexists(path):
                self.unreadable[path] = reason(error)
            return None

    def _read(self, path: Path) -> Record | None:
        try:
            record = read_record(path)
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            if os.path.lexists(path):
                self.unreadable[path] = reason(error)
            return None
        self.unreadable.pop(path, None)
        return record
