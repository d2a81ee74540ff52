"""What a record file must be: name, identity and cell agree, and its numbers make sense.

Every other file is named in one line and ignored, by `Store` and by the commands.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.io.digest import digest
from bench.records.cell import CORE_VERSION, Cell, Component
from bench.records.record import Record, Results
from bench.records.store import Store

SAMPLE = Path(__file__).with_name("samples") / "schema-1.json"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path)
    opened.records.mkdir()
    return opened


@pytest.fixture
def ok(
    make_cell: Callable[..., Cell],
    make_record: Callable[..., Record],
    good_results: Callable[..., Results],
) -> Callable[..., Record]:
    def make(*scores: float, matrix: bool = False, **cell: Any) -> Record:
        results = good_results(*(scores or (0.5, 0.75)), matrix=matrix)
        return make_record(cell=make_cell(**cell), status="ok", reason="", results=results)

    return make


def put(store: Store, content: Any, name: str | None = None) -> Path:
    """Write content as a record file, by default under its identity."""
    content = json.loads(content.model_dump_json()) if isinstance(content, Record) else content
    path = store.path(name or content["identity"])
    path.write_text(json.dumps(content))
    return path


def spoiled(record: Record, where: str, value: Any) -> dict[str, Any]:
    """A record's content with another value at a dotted place, and an identity that fits it."""
    content: Any = json.loads(record.model_dump_json())
    *path, last = (int(p) if p.isdigit() else p for p in where.split("."))
    inner = content
    for key in path:
        inner = inner[key]
    inner[last] = value
    if path and path[0] == "cell":
        content["identity"] = digest(content["cell"])[:20]
    return content


def why(store: Store, path: Path) -> str:
    """The reason for which the file at ``path`` is ignored, and it alone."""
    store.unreadable.clear()
    names = {record.identity for record in store}
    assert path.stem not in names
    assert set(store.unreadable) == {path}
    assert store.get(path.stem) is None
    assert "\n" not in store.unreadable[path]
    return store.unreadable[path]


# --- name, identity and cell agree ----------------------------------------------


@pytest.mark.parametrize("name", ["copy", "0" * 20, "record (1)", ".hidden", "evil\x1b[2J\n"])
def test_a_copy_is_not_counted(store: Store, ok: Callable[..., Record], name: str) -> None:
    record = ok()
    put(store, record)
    copy = put(store, record, name)
    assert list(store) == [record]
    assert f"record of cell {record.identity}" in why(store, copy)
    assert all(line.isprintable() for line in store.warnings())


def test_the_content_of_another_cell_does_not_stand_for_it(
    store: Store, ok: Callable[..., Record]
) -> None:
    mine, other = ok(), ok(seed=9)
    put(store, other)
    path = put(store, other, mine.identity)
    assert f"record of cell {other.identity}" in why(store, path)
    assert list(store) == [other]


@pytest.mark.parametrize(
    ("where", "value"),
    [("cell.seed", 4), ("cell.method.config.learning_rate", 0.1), ("cell.data", "other")],
)
def test_a_cell_that_was_edited_is_not_the_one_of_its_identity(
    store: Store, ok: Callable[..., Record], where: str, value: Any
) -> None:
    record = ok()
    content = spoiled(record, where, value)
    content["identity"] = record.identity
    reason = why(store, put(store, content))
    assert f"its identity {record.identity} is not that of its cell" in reason


def test_a_good_record_takes_the_place_of_a_foreign_one_which_is_kept(
    store: Store, ok: Callable[..., Record]
) -> None:
    record = ok()
    foreign = put(store, ok(seed=9), record.identity)
    before = foreign.read_bytes()
    store.write(record)
    assert list(store) == [record]
    assert foreign.with_name(f"{foreign.name}.unreadable").read_bytes() == before


def old_cell(core: int) -> dict[str, Any]:
    cell = dict(json.loads(SAMPLE.read_text())["cell"])
    return cell | {"core": core}


def test_cells_of_earlier_core_versions_are_known_by_the_identity_that_they_had_then(
    store: Store,
) -> None:
    """As the versions of then made it: see `bench.records.reading.identities`."""
    sample = json.loads(SAMPLE.read_text())
    forms: list[tuple[dict[str, Any], dict[str, Any]]] = [(c := old_cell(1), c)]
    # Core 2 and 3: the origin of settings and variants were hashed only where there were any.
    forms.append((old_cell(2) | {"settings": "default"}, old_cell(2)))
    tuned = old_cell(3) | {"settings": "tuned"}
    forms.append((tuned | {"variant": None}, tuned))
    # Core 4: files by their content, profiles by their digest.
    method = old_cell(4)["method"]
    with_file = {**method, "files": {"weights": "ab"}}
    hashed = {**method, "config": {**method["config"], "weights": "sha256:ab"}}
    late = old_cell(4) | {"device": "/there/my.yaml"}
    written = late | {"method": with_file, "settings": "default", "variant": None}
    forms.append((written, late | {"method": hashed, "device": "file"}))
    for written, hashed in forms:
        put(store, sample | {"cell": written, "identity": digest(hashed)[:20]})
    assert len(list(store)) == len(forms)
    assert store.unreadable == {}


def test_a_cell_of_this_core_version_has_no_other_identity(
    store: Store, ok: Callable[..., Record]
) -> None:
    content = json.loads(ok(core=CORE_VERSION).model_dump_json())
    put(store, content)
    del content["cell"]["variant"]
    shortened = put(store, content | {"identity": digest(content["cell"])[:20]})
    assert "is not that of its cell" in why(store, shortened)


# --- numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("value", [-0.01, 1.0001, 5.57, True, "0.5", None, 10**40])
@pytest.mark.parametrize(
    "where",
    [
        "results.source_before",
        "results.source_after",
        "results.matrix.1.0",
        *(f"results.domains.1.{name}" for name in ("before", "after", "final", "online")),
    ],
)
def test_an_accuracy_outside_its_range_is_no_accuracy(
    store: Store, ok: Callable[..., Record], where: str, value: Any
) -> None:
    if value is None and where.endswith("online"):
        return
    put(store, ok(seed=1))
    reason = why(store, put(store, spoiled(ok(matrix=True), where, value)))
    assert where in reason or "integer 41 characters long" in reason


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("results.matrix", []),
        ("results.matrix", [[]]),
        ("results.matrix", [[0.5]]),
        ("results.matrix", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.5]]),
        ("results.domains", []),
        ("results", None),
        ("results.domains.0.steps", -1),
        ("results.domains.0.test_samples", 2**60),
        ("results.costs.adaptation_time.value", 1e300),
        ("results.costs.peak_memory.value", float("nan")),
        ("wall_s", -1.0),
        ("cell.protocol.name", ["periodic"]),
        ("cell.protocol.name", {}),
        ("cell.variant", {"name": "compressed", "config": {}, "code": "x"}),
        ("cell.seed", 2**70),
        ("environment.processor", "\ud800"),
        ("method.changed", {"a": "\udfff"}),
        ("method.needs", "none"),
    ],
)
def test_content_that_no_report_can_show_is_refused(
    store: Store, ok: Callable[..., Record], where: str, value: Any
) -> None:
    path = put(store, spoiled(ok(0.5, 0.75, matrix=True), where, value))
    assert len(why(store, path)) < 400


@pytest.mark.parametrize("number", ["Infinity", "-Infinity", "NaN", "1e999", "-1e400"])
@pytest.mark.parametrize("where", ["wall_s", "cell.protocol.window_s", "method.changed"])
def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(
    store: Store, ok: Callable[..., Record], where: str, number: str
) -> None:
    path = put(store, spoiled(ok(), where, 12345.5))
    path.write_text(path.read_text().replace("12345.5", number))
    assert why(store, path) == f"it holds {number}, which is no finite number"


@pytest.mark.parametrize("levels", [40, 500, 5000])
@pytest.mark.parametrize("where", ["method.changed", "environment"])
def test_settings_that_are_nested_without_end_are_refused(
    store: Store, ok: Callable[..., Record], where: str, levels: int
) -> None:
    content = spoiled(ok(), where, {"deep": "HERE"})
    path = store.path(content["identity"])
    path.write_text(json.dumps(content).replace('"HERE"', "[" * levels + "]" * levels))
    assert "nested" in why(store, path) or "recursion" in why(store, path)


# --- what is no file ---------------------------------------------------------------


def test_pipes_sockets_devices_and_links_to_nothing_neither_hang_nor_fill_memory(
    store: Store, ok: Callable[..., Record]
) -> None:
    record = ok()
    put(store, record)
    paths = [store.path(letter * 20) for letter in "abcdef"]
    os.mkfifo(paths[0])
    paths[1].symlink_to("/dev/zero")
    paths[2].symlink_to("/nowhere")
    paths[3].symlink_to(paths[3])
    with paths[4].open("wb") as large:
        large.truncate(101 * 10**6)
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(store.records)  # names of sockets are short
        listener.bind(paths[5].name)
    assert list(store) == [record]
    assert [store.get(path.stem) for path in paths] == [None] * 6
    reasons = [store.unreadable[path] for path in paths]
    assert reasons[0] == "it is a named pipe, not a file"
    assert reasons[1] == "it is a device, not a file"
    assert reasons[4] == "it has 101 MB; a record has at most 34"
    assert reasons[5] == "it is a socket, not a file"
    for path in paths:  # a run of these cells still has its record
        fresh = ok(seed=ord(path.name[0]))
        path.rename(store.path(fresh.identity))
        store.write(fresh)
    assert len(list(store)) == 7


def test_the_commands_name_and_count_what_they_ignore(
    store: Store, ok: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.reports import draw_all

    monkeypatch.setattr(draw_all, "draw", lambda *_: [])
    good = ok()
    put(store, good)
    bad = {
        put(store, good, "copy"): "a copy",
        put(store, spoiled(ok(seed=5), "results.domains.0.after", 5.57)): "not 5.57",
        put(store, spoiled(ok(seed=6), "results", None)): "status ok without results",
        put(store, ok(seed=7), ok(seed=8).identity): f"record of cell {ok(seed=7).identity}",
    }
    status = CliRunner().invoke(app, ["status", "--store", str(store.root)])
    assert (status.exit_code, status.stdout.splitlines()[:3]) == (
        0,
        [
            f"1 records in {store.records}",
            f"  4 files in {store.records} ignored (each is named below)",
            "  domain-shift: 1 ok",
        ],
    )
    out = store.root / "out"
    report = CliRunner().invoke(app, ["report", "--store", str(store.root), "--out", str(out)])
    assert report.exit_code == 0
    for done in (status, report):
        lines = done.stderr.splitlines()
        assert len(lines) == len(bad) + 1
        for path, reason in bad.items():
            (line,) = [line for line in lines if str(path) in line]
            assert reason in line
        assert lines[-1].startswith(f"bench: warning: 4 files in {store.records} ignored: ")
    (table,) = out.glob("*.csv")
    assert len(table.read_text().splitlines()) == 2


def test_a_variant_is_named_by_its_ratio(make_cell: Callable[..., Cell]) -> None:
    for config in ({}, {"size": 8}):
        with pytest.raises(ValueError, match="the variant has no setting 'ratio'"):
            make_cell(variant=Component(name="compressed", config=config, code="x"))
