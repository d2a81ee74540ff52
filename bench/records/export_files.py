"""A store's records for others: a table, an archive that is a store again, a format of others."""

from __future__ import annotations

import io
import lzma
import os
import stat
import tarfile
import time
import uuid
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from bench import registry
from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.records.export import to_frame
from bench.records.record import Record
from bench.records.store import Store

DATE = (1980, 1, 1, 0, 0, 0)
"""Of all files in an archive, so that equal stores give equal ones; zip knows none before it."""


def export(store: Store, form: str, out: Path, organization: str = "", **further: str) -> int:
    """Write the readable records to a file, or to a folder; how many they are.

    ``form``: ``csv`` or ``parquet``, a row for each cell and domain as `to_frame` has it; ``zip``,
    the files of records and their logs as they are; ``tar.xz``, those of records alone in a quarter
    of the space; another registered one, such as ``every-eval-ever``, a folder of files, which may
    say that an ``organization`` made the runs; ``further``: what one of these takes besides. Raises
    BenchError if that cannot be written, or if a library is missing.
    """
    records = list(store)
    if not records:
        raise BenchError(f"store {store.root}: holds no record to export")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if form in FORMS:
            FORMS[form](store, records, out)
        else:
            made = registry.load("report", form)(records, organization, time.time(), **further)
            for name, content in made.items():
                write_atomically(out / name, content)
    except OSError as error:
        raise BenchError(
            f"{out}: cannot be written: {error.strerror or error}; name another file"
        ) from error
    return len(records)


def _csv(store: Store, records: Iterable[Record], out: Path) -> None:
    frame = to_frame(records)
    texts = frame.select_dtypes("object").columns
    frame[texts] = frame[texts].map(_no_formula)
    write_atomically(out, frame.to_csv(index=False).encode())


def _no_formula(value: Any) -> Any:
    """Text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@") else value


def _parquet(store: Store, records: Iterable[Record], out: Path) -> None:
    content = io.BytesIO()
    try:
        to_frame(records).to_parquet(content, index=False)
    except ImportError as error:
        raise BenchError(
            "format parquet needs pyarrow; pip install 'edge-adaptation-bench[parquet]', or take "
            "csv"
        ) from error
    write_atomically(out, content.getvalue())


def _zip(store: Store, records: Iterable[Record], out: Path) -> None:
    unfinished = out.parent / f".{out.name}.{uuid.uuid4().hex}"
    try:
        with zipfile.ZipFile(unfinished, "x", zipfile.ZIP_DEFLATED) as archive:
            for record in records:
                path = store.path(record.identity)
                _add(archive, f"records/{path.name}", path.read_bytes())
            logs = {log_file(store, record.log) for record in records}  # runs may share one
            for path in sorted(filter(None, logs)):
                _add(archive, f"logs/{path.name}", path.read_bytes())
        os.replace(unfinished, out)
    finally:
        unfinished.unlink(missing_ok=True)


def _tar_xz(store: Store, records: Iterable[Record], out: Path) -> None:
    """Compressed as one: records of a suite are alike, which files packed one by one do not use."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for record in records:
            path = store.path(record.identity)
            content = path.read_bytes()
            member = tarfile.TarInfo(f"records/{path.name}")  # of nobody, in 1970
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    write_atomically(out, lzma.compress(packed.getvalue(), preset=9))


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def log_file(store: Store, log: str) -> Path | None:
    """The file of a log as a record names it; None if it is no regular file among the logs."""
    name = PurePosixPath(log).name
    if not name or "\0" in name or log != f"{store.logs.name}/{name}":
        return None
    path = store.logs / name
    try:
        return path if stat.S_ISREG(path.lstat().st_mode) else None
    except OSError:
        return None


FORMS: dict[str, Callable[[Store, Iterable[Record], Path], None]] = {
    "csv": _csv,
    "parquet": _parquet,
    "zip": _zip,
    "tar.xz": _tar_xz,
}
