"""Record files that anyone may have written: no traceback, no hang, no accuracy out of range.

Valid records are changed at random places, cut off, or replaced by noise, and half of the time the
identity is made anew so that the spoiled content gets as far as the reports. Each lies in a store
beside good ones, which must stay in every table. The slow variants try 2,000 examples in all.
"""

from __future__ import annotations

import copy
import csv
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import BenchError
from bench.execute.api import load_results
from bench.io.digest import digest
from bench.records.record import Record, Results
from bench.records.store import Store

SECONDS = 20.0
"""Far more than reading a small store takes, also on a busy machine."""

few_or_many = pytest.mark.parametrize(
    ("examples", "seed"), [(20, 0), *(pytest.param(500, n, marks=pytest.mark.slow) for n in (1, 2))]
)

# --- files ---------------------------------------------------------------------

numbers = st.sampled_from(
    [0, -1, 2, 1.5, -0.5, 1e29, -1e300, 1e308, 5e-324, 2**53, -(2**63), 10**25, 10**400, True]
) | st.floats(allow_nan=True, allow_infinity=True)
texts = st.sampled_from(
    [
        "",
        "\x1b[31m",
        "\n",
        "\ud800",
        "a" * 5000,
        "NaN",
        "=1+1",
        "$\\frac{",
        "<b>",
        "../x",
        "[",
        "ok",
    ]
) | st.text(max_size=8)
odd = st.recursive(
    st.none() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
change = st.tuples(
    st.sampled_from(["replace", "replace", "delete", "rename", "repeat", "empty", "nest"]),
    st.integers(0, 10**6),
    odd,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in JSON values."""
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def spoil(content: dict[str, Any], changes: list[tuple[str, int, Any]]) -> None:
    for what, where, new in changes:
        found = list(places(content))
        if not found:
            return
        container, key = found[where % len(found)]
        if what == "replace":
            container[key] = new
        elif what == "delete":
            del container[key]
        elif what == "rename" and isinstance(container, dict):
            container[str(new)] = container.pop(key)
        elif what == "repeat" and isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
        elif what == "empty" and isinstance(container[key], dict | list):
            container[key].clear()
        elif what == "nest":
            container[key] = [container[key]]


def with_own_identity(content: Any) -> str:
    """Make the identity that of the cell, as far as there is one, and return the file's name."""
    try:
        content["identity"] = digest(content["cell"])[:20]
    except (KeyError, TypeError, ValueError, RecursionError):
        return "0" * 20
    return str(content["identity"])


@st.composite
def files(draw: st.DrawFn, valid: list[dict[str, Any]]) -> tuple[str, bytes]:
    """A file's name and content."""
    content = copy.deepcopy(draw(st.sampled_from(valid)))
    name = content["identity"]
    kind = draw(st.sampled_from(["changed", "changed", "changed", "cut", "noise"]))
    if kind == "noise":
        return name, draw(st.binary(max_size=200) | st.text(max_size=50).map(str.encode))
    spoil(content, draw(st.lists(change, min_size=kind == "changed", max_size=3)))
    if draw(st.booleans()):
        name = with_own_identity(content)
    written = json.dumps(content).encode()
    return name, written[: draw(st.integers(0, len(written)))] if kind == "cut" else written


# --- a store of good records --------------------------------------------------


@pytest.fixture(scope="module")
def good(
    make_cell: Callable[..., Any],
    make_record: Callable[..., Record],
    good_results: Callable[..., Results],
) -> list[Record]:
    """Two methods over two seeds, under a protocol without and one with an accuracy matrix."""
    made = []
    for matrix in (False, True):
        protocol = {"name": "periodic", "window_s": 60.0, "evaluate_all": matrix}
        for name, gain in (("source-only", 0.0), ("tent", 0.2)):
            for seed in (0, 1):
                method = make_cell().method.model_copy(update={"name": name})
                cell = make_cell(method=method, protocol=protocol, seed=seed)
                found = good_results(0.5 + gain, 0.6 + gain / 2, matrix=matrix)
                made.append(make_record(cell=cell, status="ok", reason="", results=found))
    return made


@pytest.fixture
def plain_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes a second and reads nothing that tables do not."""
    from bench.reports import draw_all

    monkeypatch.setattr(draw_all, "draw", lambda *_: [])


def lies_in_range(record: Record) -> bool:
    """Whether every accuracy of a record does."""
    found = record.results
    if found is None:
        return True
    shares = [found.source_before, found.source_after, found.score]
    shares += [r for row in found.matrix or [] for r in row]
    for domain in found.domains:
        shares += [domain.before, domain.after, domain.final, domain.online or 0.0]
    return all(0 <= share <= 1 for share in shares)


def invoke(*arguments: str) -> str:
    """What a command prints; a user error is fine, everything else is not."""
    began = time.monotonic()
    done = CliRunner().invoke(app, list(arguments))
    assert time.monotonic() - began < SECONDS
    if done.exception is not None and not isinstance(done.exception, BenchError):
        raise done.exception
    return done.output + str(done.exception or "")


def check(file: tuple[str, bytes], good: list[Record], look: Callable[[Path], None]) -> None:
    """Put a file among good records and ``look`` at the store."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.records.mkdir()
        for record in good:
            store.path(record.identity).write_text(record.model_dump_json())
        name, content = file
        store.path(name).write_bytes(content)
        look(store.root)


@few_or_many
def test_reading_a_spoiled_store(examples: int, seed: int, good: list[Record]) -> None:
    valid = [json.loads(record.model_dump_json()) for record in good]

    def look(root: Path) -> None:
        store = Store(root)
        found = list(store)
        assert len(good) - 1 <= len(found) <= len(good) + 1
        assert len(found) + len(store.unreadable) == len(list(store.records.iterdir()))
        assert all(map(lies_in_range, found))
        for record in found:
            assert Record.model_validate_json(record.model_dump_json()) == record
            assert store.get(record.identity) == record
        assert all("\n" not in line and len(line) < 1000 for line in store.warnings())
        said = invoke("status", "--store", str(root))
        assert said.startswith(f"{len(found)} records in {root}")
        assert ("ignored" in said) == bool(store.unreadable)

    tried(examples, seed, files(valid), lambda file: check(file, good, look))


@pytest.mark.filterwarnings("ignore:.*ignored:UserWarning")
@few_or_many
def test_reporting_a_spoiled_store(
    examples: int, seed: int, good: list[Record], plain_page: None
) -> None:
    valid = [json.loads(record.model_dump_json()) for record in good]

    def look(root: Path) -> None:
        said = invoke("report", "--store", str(root), "--out", str(root / "out"))
        assert "report.html" in said  # the good records are shown whatever lies beside them
        tables = [list(csv.DictReader(p.open())) for p in sorted((root / "out").glob("*.csv"))]
        shown = [row["method"] for table in tables for row in table]
        assert {"source-only", "tent"} <= set(shown)
        for row in (row for table in tables for row in table):
            for measure in ("before", "after", "final", "seen_at_end", "online"):
                assert 0 <= float(row[f"{measure}_percent"] or 0) <= 100, row
        load_results(root)

    tried(examples, seed, files(valid), lambda file: check(file, good, look))


def tried(
    examples: int,
    seed: int,
    strategy: st.SearchStrategy[tuple[str, bytes]],
    look: Callable[[tuple[str, bytes]], None],
) -> None:
    """Look at so many examples of a strategy, others for each seed."""
    from hypothesis import seed as seeded

    seeded(seed)(settings(max_examples=examples, derandomize=False)(given(strategy)(look)))()


def test_a_good_store_is_looked_at_as_it_is(good: list[Record], plain_page: None) -> None:
    """The tests above find what they look for."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        for record in good:
            store.write(record)
        assert "8 records" in invoke("status", "--store", folder)
        said = invoke("report", "--store", folder, "--out", f"{folder}/out")
        assert said.count(".csv") == 2
        assert "ignored" not in said
        shutil.rmtree(store.records)
        assert "no records there" in invoke("status", "--store", folder)
