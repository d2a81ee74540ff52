"""The store: one JSON file a record, written atomically; nothing else is the truth."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pydantic

from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.records.record import SCHEMA_VERSION, Record


class Store:
    """Records under ``root/records/``, logs under ``root/logs/``.

    Safe for many writers on a shared file system: a record is a file of its own, named by the
    cell's identity, and appears whole. Files that cannot be read are left alone and reported.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
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
        path = self.path(identity)
        return self._read(path) if path.exists() else None

    def write(self, record: Record) -> Path:
        """Write a record over an earlier one of the same cell; raises BenchError if impossible.

        A result is never lost to a failure: where an ``ok`` record stands and this one is not,
        nothing is written.
        """
        path = self.path(record.identity)
        if path.exists():
            earlier = self._read(path)
            if earlier is None:  # of a later version, perhaps: keep it
                path.rename(path.with_suffix(".json.unreadable"))
            elif earlier.status == "ok" and record.status != "ok":
                return path  # another command's result stands
        try:
            write_atomically(path, record.model_dump_json(indent=1).encode())
        except OSError as error:
            raise BenchError(
                f"record {path}: cannot be written: {error.strerror}; free space or choose "
                "another --store"
            ) from error
        return path

    def __iter__(self) -> Iterator[Record]:
        """All readable records in the order of their file names."""
        for path in sorted(self.records.glob("*.json")):
            record = self._read(path)
            if record is not None:
                yield record

    def _read(self, path: Path) -> Record | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            version = content.get("schema_version") if isinstance(content, dict) else None
            if not isinstance(version, int) or version > SCHEMA_VERSION:
                raise ValueError(f"schema version {version!r}; this program reads {SCHEMA_VERSION}")
            return Record.model_validate(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(p) for p in first["loc"])
            self.unreadable[path] = f"{where}: {first['msg']}"
        except (OSError, ValueError, RecursionError) as error:
            self.unreadable[path] = str(error)
        return None
