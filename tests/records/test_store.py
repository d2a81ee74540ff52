"""The store: whole files only, nothing lost, and one bad file stops no other."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import BenchError
from bench.io.atomic_write import write_atomically
from bench.records.cell import Cell, Component
from bench.records.record import Amount, Costs, DomainResult, MethodFacts, Record, Results
from bench.records.store import Store

OLD = Path(__file__).parent / "samples"

# --- every record that can be made -------------------------------------------

text = st.text(max_size=12)
number = st.floats(-1e30, 1e30)
seconds = st.floats(0, 1e30)
share = st.floats(0, 1)
count = st.integers(0, 2**53)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | number | text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=4,
)
settings_ = st.dictionaries(text, plain, max_size=3)
component = st.builds(Component, name=text, config=settings_, code=text)
cells = st.builds(
    Cell, method=component, model=component, stream=component, data=text, device=text,
    device_digest=text, protocol=settings_, seed=st.integers(0, 2**31 - 1),
    target_labels=st.booleans(), core=st.integers(1, 9),
)  # fmt: skip
amounts = st.one_of(
    st.builds(
        Amount, value=number, unit=text, kind=st.sampled_from(["measured", "modelled"]), how=text
    ),
    st.builds(Amount, value=st.none(), unit=text, kind=st.just("unavailable"), how=text),
)
domains = st.builds(
    DomainResult, name=text, before=share, after=share, final=share, adaptation_samples=count,
    test_samples=count, steps=count, time_s=seconds, energy_j=st.none() | number,
    window_closed=st.booleans(),
)  # fmt: skip
costs = st.builds(
    Costs, adaptation_time=amounts, adaptation_energy=amounts, peak_memory=amounts,
    runtime_memory=amounts, source_storage=amounts, inference_time=amounts,
    inference_energy=amounts, steps=st.dictionaries(text, count, max_size=2),
    flops=st.none() | number, bytes=st.none() | number, launches=st.none() | number,
    tracing_s=number,
)  # fmt: skip
all_results = st.builds(
    Results, source_before=share, source_after=share,
    domains=st.lists(domains, min_size=1, max_size=2), costs=costs,
)  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> Record:
    cell = draw(cells)
    status = draw(st.sampled_from(["ok", "failed", "oom", "timeout", "unsupported", "interrupted"]))
    return Record(
        identity=cell.identity,
        run=draw(text),
        suite=draw(text),
        status=status,
        reason=draw(text),
        oom_on=draw(st.sampled_from(["device", "host", None])),
        cell=cell,
        method=MethodFacts(
            family=draw(text), provenance=draw(text), paper=draw(text),
            needs=draw(st.lists(text, max_size=2)), changed=draw(settings_),
        ),
        started=draw(text),
        wall_s=draw(st.floats(0, 1e9)),
        attempt=draw(count),
        log=draw(text),
        environment=draw(settings_),
        source_model=draw(text),
        results=draw(all_results if status == "ok" else st.none() | all_results),
    )  # fmt: skip


@settings(max_examples=60)
@given(record=records())
def test_every_record_reads_back_equal(record: Record) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        path = store.write(record)
        assert path == store.path(record.identity)
        again = Store(folder)
        assert again.get(record.identity) == record
        assert list(again) == [record]
        assert again.unreadable == {}
        assert record.cell.identity == next(iter(again)).cell.identity


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_before_it_is_written(odd: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        DomainResult(
            name="a", before=0.5, after=0.5, final=0.5, adaptation_samples=4,
            test_samples=4, steps=1, time_s=odd, energy_j=None, window_closed=False,
        )  # fmt: skip


# --- atomic writing ----------------------------------------------------------


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_record_and_no_temporary_file(
    tmp_path: Path,
    make_record: Callable[..., Record],
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
) -> None:
    store = Store(tmp_path)
    path = store.write(make_record(reason="old"))
    monkeypatch.setattr(os, stage, full)
    with pytest.raises(BenchError) as caught:
        store.write(make_record(reason="new"))
    monkeypatch.undo()
    assert str(caught.value) == (
        f"record {path}: cannot be written: No space left on device; free space or choose "
        "another --store"
    )
    assert [f.name for f in store.records.iterdir()] == [path.name]
    assert [r.reason for r in store] == ["old"]


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_a_failed_first_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    monkeypatch.setattr(os, stage, full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "new" / "file", b"content")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EEXIST, "File exists"), (errno.EXDEV, "Invalid cross-device link")],
)
def test_a_file_system_that_replaces_no_file_is_told_in_one_line_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Any],
    number: int, said: str,
) -> None:  # fmt: skip
    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    store = Store(tmp_path)
    kept = make_record(status="failed", reason="it did not converge")
    path = store.write(kept)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(BenchError) as told:
        store.write(make_record())
    assert str(told.value) == (
        f"record {path}: cannot be written: {said}; free space or choose another --store"
    )
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_between_write_and_rename_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    def interrupted(*_: Any) -> None:
        raise stop

    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(stop):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))

    def rename(source: Any, target: Any) -> None:
        calls.append("replace")
        assert Path(source).read_bytes() == b"content"
        assert Path(source).parent == Path(target).parent
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    write_atomically(tmp_path / "file", b"content")
    assert calls[:2] == ["fsync", "replace"]
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_half_written_temporary_file_is_no_record(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    store = Store(tmp_path)
    record = make_record()
    path = store.write(record)
    (path.parent / f".{path.name}.abc123").write_text('{"schema_ver')
    assert list(store) == [record]
    assert store.unreadable == {}


def test_a_store_that_is_a_file_is_a_user_error(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot be written"):
        Store(tmp_path / "file").write(make_record())


def test_an_empty_or_missing_store_has_no_records(tmp_path: Path) -> None:
    assert list(Store(tmp_path / "nowhere")) == []
    assert Store(tmp_path / "nowhere").get("0" * 20) is None
    assert not (tmp_path / "nowhere").exists()


def test_a_second_write_replaces_the_first_and_records_come_in_order_of_name(
    tmp_path: Path, make_cell: Callable[..., Cell], make_record: Callable[..., Record]
) -> None:
    store = Store(tmp_path)
    for seed in range(6):
        store.write(make_record(cell=make_cell(seed=seed), reason="first"))
        store.write(make_record(cell=make_cell(seed=seed), reason="second", attempt=2))
    identities = [r.identity for r in store]
    assert identities == sorted(make_cell(seed=s).identity for s in range(6))
    assert {(r.reason, r.attempt) for r in store} == {("second", 2)}


@pytest.mark.parametrize("identity", ["../outside", "../../outside", "a/b"])
def test_no_record_is_written_outside_the_store(
    tmp_path: Path, make_record: Callable[..., Record], identity: str
) -> None:
    """A record file from elsewhere can hold any identity; its name must not leave the folder."""
    root = tmp_path / "store"
    with pytest.raises((BenchError, ValueError)):
        Store(root).write(make_record(identity=identity))
    assert not list(tmp_path.rglob("outside.json"))


# --- files that cannot be read ------------------------------------------------

BAD = {
    "empty": b"",
    "cut off": b'{"schema_version": 1, "identity": "ab',
    "a list": b"[1, 2]",
    "no version": b"{}",
    "a future schema": b'{"schema_version": 3, "identity": "x"}',
    "a far future schema": b'{"schema_version": 99}',
    "a version that is text": b'{"schema_version": "1"}',
    "version zero": b'{"schema_version": 0}',
    "missing fields": b'{"schema_version": 1, "identity": "x"}',
    "not UTF-8": b"\xff\xfe\x00\x01",
    "deeply nested": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_reported_and_the_others_load(
    tmp_path: Path, make_record: Callable[..., Record], name: str
) -> None:
    store = Store(tmp_path)
    record = make_record()
    store.write(record)
    for stem in ("0" * 20, "f" * 20):  # before and after the good one
        store.path(stem).write_bytes(BAD[name])
    assert list(store) == [record]
    assert set(store.unreadable) == {store.path("0" * 20), store.path("f" * 20)}
    assert all(reason for reason in store.unreadable.values())
    assert store.get("0" * 20) is None
    assert store.path("0" * 20).read_bytes() == BAD[name]  # left alone


def test_a_future_schema_is_named_with_the_one_that_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.records.mkdir()
    store.path("a").write_bytes(BAD["a future schema"])
    assert list(store) == []
    assert store.unreadable[store.path("a")] == "schema version 3; this program reads 2"


def test_an_unknown_field_is_named(tmp_path: Path, make_record: Callable[..., Record]) -> None:
    store = Store(tmp_path)
    record = make_record()
    path = store.write(record)
    content = json.loads(path.read_text())
    content["cell"]["color"] = "red"
    path.write_text(json.dumps(content))
    assert store.get(record.identity) is None
    assert store.unreadable[path].startswith("cell.color: ")


def test_a_folder_named_like_a_record_is_reported(
    tmp_path: Path, make_record: Callable[..., Record]
) -> None:
    store = Store(tmp_path)
    store.write(make_record())
    (store.records / "folder.json").mkdir()
    assert len(list(store)) == 1
    assert list(store.unreadable) == [store.records / "folder.json"]


# --- old records ---------------------------------------------------------------


def test_a_sample_of_every_schema_is_kept() -> None:
    from bench.records.record import SCHEMA_VERSION

    for version in range(1, SCHEMA_VERSION + 1):
        assert (OLD / f"schema-{version}.json").is_file()


def test_the_old_record_of_schema_1_still_loads(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.records.mkdir()
    shutil.copy(OLD / "schema-1.json", store.path("02dd44eff68c086d1872"))
    (record,) = list(store)
    assert store.unreadable == {}
    assert record.status == "ok"
    assert record.cell.method.name == "tent"
    assert record.cell.method.config == {"learning_rate": 0.001, "epochs": 1}
    assert record.results is not None
    assert [d.name for d in record.results.domains] == ["rotation-1", "noise-1"]
    assert record.results.mean("after") == pytest.approx(0.7)
    assert record.results.forgetting == pytest.approx(0.05)
    assert record.results.metric.title == "accuracy"  # there was no other
    costs = record.results.costs
    assert (costs.adaptation_time.value, costs.adaptation_time.unit) == (1.5, "s")
    assert costs.adaptation_energy.kind == "modelled"
    assert costs.steps == {"adapt": 8}
    assert costs.time_by_kind is None
    assert "time_by_kind" not in costs.model_dump_json()  # written again it is what it was


def test_a_record_names_its_metric(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.records.mkdir()
    shutil.copy(OLD / "schema-2.json", store.path("02dd44eff68c086d1872"))
    (record,) = list(store)
    assert record.results is not None
    metric = record.results.metric
    assert (metric.name, metric.title, metric.unit) == ("mean-iou", "mean IoU", "%")
    assert metric.named_in("Accuracy (%): accuracy") == "Mean IoU (%): mean IoU"
    tokens = metric.model_copy(update={"title": "token accuracy"})
    assert tokens.named_in("Accuracy is the accuracy") == "Token accuracy is the token accuracy"
    precision = metric.model_copy(update={"title": "mAP@50"})
    assert precision.named_in("Accuracy is the accuracy") == "mAP@50 is the mAP@50"
    assert metric.named_in("(prequential accuracy, Gama)") == "(prequential accuracy, Gama)"
