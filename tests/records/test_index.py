"""The index of a store: what is read through it is what the records say, whatever happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.records import index
from bench.records import store as store_module
from bench.records.record import Record, Results
from bench.records.store import Store
from bench.records.summary import RecordSummary, summarize

Good = Callable[..., Results]


@pytest.fixture(autouse=True)
def _settled() -> Iterator[None]:
    """Files count as settled at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "SETTLED_NS", -(10**12))
        yield


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the record files that are read."""
    names: list[str] = []
    read = store_module.read_record

    def counted(path: Path) -> Record:
        names.append(path.name)
        return read(path)

    monkeypatch.setattr(store_module, "read_record", counted)
    return names


def filled(root: Path, make_record: Callable[..., Record], count: int = 3) -> Store:
    store = Store(root)
    for seed in range(count):
        record = make_record()
        cell = record.cell.model_copy(update={"seed": seed})
        store.write(record.model_copy(update={"cell": cell, "identity": cell.identity}))
    return store


def plain(found: list[RecordSummary]) -> list[tuple[object, ...]]:
    return [(s.identity, s.suite, s.cell, s.windows, *s[2:]) for s in found]


def agree(root: Path) -> None:
    """What the index says is what reading all records says."""
    through, direct = Store(root), Store(root)
    found, expected = list(through.summaries()), [summarize(record) for record in direct]
    assert plain(found) == plain(expected)
    assert through.unreadable == direct.unreadable


def test_only_what_is_new_is_read(
    tmp_path: Path, make_record: Callable[..., Record], reads: list[str]
) -> None:
    store = filled(tmp_path, make_record)
    assert len(list(store.summaries())) == 3
    del reads[:]
    assert len(list(Store(tmp_path).summaries())) == 3
    assert reads == []
    size = (tmp_path / index.FILE).stat().st_size
    filled(tmp_path, make_record, 4)
    del reads[:]
    assert len(list(Store(tmp_path).summaries())) == 4
    # Records that were written over are other files; an index line has what was read alone.
    assert len(reads) == 4
    assert (tmp_path / index.FILE).stat().st_size > size


def test_a_store_that_was_read_first_has_its_templates_once(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "BATCH", 2)
    filled(tmp_path, make_record, 5)
    list(Store(tmp_path).summaries())
    (line,) = filter(None, (tmp_path / index.FILE).read_bytes().split(b"\n"))
    assert line.count(b'"method"') == 1
    filled(tmp_path / "more", make_record, 6)
    for path in (tmp_path / "more" / "records").iterdir():
        if not (tmp_path / "records" / path.name).exists():
            path.rename(tmp_path / "records" / path.name)
    assert len(list(Store(tmp_path).summaries())) == 6
    assert len(list(filter(None, (tmp_path / index.FILE).read_bytes().split(b"\n")))) == 2
    agree(tmp_path)


def test_what_is_done_by_hand_is_noticed_even_with_size_and_time_kept(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    filled(tmp_path, make_record)
    list(Store(tmp_path).summaries())
    first, second, _ = sorted((tmp_path / "records").iterdir())
    status, text = first.stat(), first.read_text()
    wall = json.loads(text)["wall_s"]
    changed = text.replace(f'"wall_s": {wall}', f'"wall_s": {str(wall)[:-1]}9', 1)
    assert changed != text
    assert len(changed) == len(text)
    first.write_text(changed)
    os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    second.unlink()
    (tmp_path / "records" / "odd.json").write_text("{}")
    agree(tmp_path)
    found = list(Store(tmp_path).summaries())
    assert found[0].wall_s == json.loads(changed)["wall_s"]
    assert len(found) == 2


@pytest.mark.parametrize("damage", [b"", b"no index", b"\0" * 500, b"deadbeef {}\n", None])
def test_a_damaged_index_is_made_again(
    tmp_path: Path, make_record: Callable[..., Record], reads: list[str], damage: bytes | None
) -> None:
    filled(tmp_path, make_record)
    list(Store(tmp_path).summaries())
    file = tmp_path / index.FILE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    agree(tmp_path)
    del reads[:]
    list(Store(tmp_path).summaries())
    assert reads == []


def test_an_index_of_another_reader_is_made_again(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch,
    reads: list[str],
) -> None:  # fmt: skip
    filled(tmp_path, make_record)
    with monkeypatch.context() as patch:
        patch.setattr(index, "_reader", lambda: "older")
        list(Store(tmp_path).summaries())
    del reads[:]
    agree(tmp_path)
    assert len(reads) == 6  # three of them without the index
    assert b'"older"' not in (tmp_path / index.FILE).read_bytes()


def test_without_an_index_where_none_can_be_written(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    filled(tmp_path, make_record)
    (tmp_path / index.FILE).mkdir()  # refused to root, too
    agree(tmp_path)
    assert len(list(Store(tmp_path).summaries())) == 3


def test_a_file_that_has_just_changed_is_not_trusted(
    tmp_path: Path, make_record: Callable[..., Record], monkeypatch: pytest.MonkeyPatch,
    reads: list[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(index, "SETTLED_NS", 10**12)
    filled(tmp_path, make_record)
    list(Store(tmp_path).summaries())
    del reads[:]
    list(Store(tmp_path).summaries())
    assert len(reads) == 3


def test_many_processes_at_once_lose_nothing(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    filled(tmp_path, make_record, 40)
    code = (
        "import sys; from bench.records import index; index.SETTLED_NS = -10**12; index.BATCH = 7; "
        "from bench.records.store import Store\n"
        "for _ in range(20): assert len(list(Store(sys.argv[1]).summaries())) == 40"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    agree(tmp_path)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "fail", "edit", "spoil", "remove", "look", "damage", "delete"]),
        st.integers(0, 5),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(actions=ACTIONS)
def test_results_through_the_index_are_those_without(
    actions: list[tuple[str, int]], make_record: Callable[..., Record], good_results: Good
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "BATCH", 2)
        root = Path(folder)
        for action, seed in actions:
            act(root, action, make_record(), seed, good_results)
            agree(root)


def act(root: Path, action: str, record: Record, seed: int, good_results: Good) -> None:
    store, file = Store(root), root / index.FILE
    draw = {"seed": seed, "source_draw": seed % 2}
    cell = record.cell.model_copy(update=draw)
    path = store.path(cell.identity)
    update = {"cell": cell, "identity": cell.identity, "suite": f"suite {seed % 2}"}
    if action in ("add", "fail"):
        ok = action == "add"
        update |= {"status": "ok" if ok else "failed", "reason": "" if ok else "it broke"}
        update |= {"results": good_results(*[0.5] * (1 + seed)) if ok else None}
        store.write(record.model_copy(update=update))
    elif action == "look":
        list(store.summaries())
    elif action == "damage" and file.exists():
        content = bytearray(file.read_bytes())
        content[seed * len(content) // 6] ^= 1
        file.write_bytes(content)
    elif action == "delete":
        file.unlink(missing_ok=True)
    elif path.exists():
        if action == "edit":
            path.write_text(path.read_text().replace('"suite": "suite', '"suite": "other', 1))
        elif action == "spoil":
            path.write_text(path.read_text()[:-9])
        else:
            path.unlink()
