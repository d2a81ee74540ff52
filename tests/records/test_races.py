"""Two writers of one cell at the same moment: a result is never lost to a failure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.records.cell import Cell
from bench.records.record import Record
from bench.records.store import Store

RACES = 400


WRITER = """
import sys
from bench.records.record import Record
from bench.records.store import Store

store = Store(sys.argv[1])
records = [Record.model_validate_json(line) for line in open(sys.argv[2])]
print("ready", flush=True)
for record in records:
    sys.stdin.readline()
    store.write(record)
    print("written", flush=True)
"""


class Writer:
    """A process that writes a record at each signal."""

    def __init__(self, root: Path, records: list[Record], file: Path) -> None:
        file.write_text("".join(f"{record.model_dump_json()}\n" for record in records))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, str(root), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def tell(self) -> None:
        print(file=self._process.stdin, flush=True)

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> int:
        self._process.communicate()
        return self._process.returncode


@pytest.mark.parametrize("before", ["nothing", "a failure", "an unreadable file"])
def test_no_result_is_lost_to_a_failure(
    tmp_path: Path,
    make_cell: Callable[..., Cell],
    make_record: Callable[..., Record],
    good_results: Callable[..., object],
    before: str,
) -> None:
    races = RACES if before == "nothing" else RACES // 8
    cells = [make_cell(seed=seed) for seed in range(races)]
    ok = [
        make_record(cell=c, status="ok", reason="", results=good_results(0.5), run="winner")
        for c in cells
    ]
    failures = ("interrupted", "failed", "timeout")
    failed = [make_record(cell=c, status=failures[c.seed % 3], run="loser") for c in cells]
    store = Store(tmp_path)
    store.records.mkdir()
    for cell in cells:
        if before == "a failure":
            store.path(cell.identity).write_text(make_record(cell=cell).model_dump_json())
        elif before == "an unreadable file":
            store.path(cell.identity).write_text("of a later version, perhaps")

    writers = [
        Writer(tmp_path, records, tmp_path / f"{i}.jsonl") for i, records in enumerate((ok, failed))
    ]
    assert [writer.said() for writer in writers] == ["ready", "ready"]
    for race in range(races):
        for writer in writers if race % 2 else reversed(writers):
            writer.tell()
        assert [writer.said() for writer in writers] == ["written", "written"]
    assert [writer.end() for writer in writers] == [0, 0]

    assert {r.identity: (r.status, r.run) for r in store} == {
        cell.identity: ("ok", "winner") for cell in cells
    }
    assert store.unreadable == {}
    kept = [path.name for path in store.records.iterdir() if path.suffix != ".json"]
    expected = {f"{c.identity}.json.unreadable" for c in cells}
    assert set(kept) == (expected if before == "an unreadable file" else set())
    assert len(kept) == len(set(kept))


def test_an_interrupted_run_does_not_replace_a_result_of_another_kind(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    store = Store(tmp_path)
    for status, oom_on, stays in (
        ("oom", "device", True),
        ("unsupported", None, True),
        ("failed", None, False),
        ("oom", "host", False),
    ):
        record = make_record(status=status, oom_on=oom_on)
        store.path(record.identity).unlink(missing_ok=True)
        store.write(record)
        store.write(make_record(status="interrupted"))
        (left,) = store
        assert left.status == (status if stays else "interrupted")


def test_a_second_failure_replaces_the_first(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    store = Store(tmp_path)
    for attempt, status in enumerate(("failed", "timeout", "interrupted", "failed"), 1):
        store.write(make_record(status=status, attempt=attempt))
        assert [(r.status, r.attempt) for r in store] == [(status, attempt)]


def test_writers_of_a_file_system_without_locks_go_on(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import fcntl

    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    store = Store(tmp_path)
    store.write(make_record())
    assert len(list(store)) == 1
