"""Which records ``bench report`` shows, and what it says of those that it leaves out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import BenchError, registry
from bench.cli import main
from bench.execute.api import report, write_report
from bench.records.record import Record
from bench.records.store import Store
from bench.records.summary import summarize
from bench.study.record_selection import left_out, matching, tuned_before_a_change
from bench.study.selection import Selection
from bench.study.suite import suite_files
from bench.study.tuned_settings import Tuned, TunedMethod, changed_since, read_tuned, tuned_path

Make = Callable[..., Record]
SUITE = """
name: mine
description: two methods on two seeds
stream: {name: digits-shift, shifts: [noise], severities: [1]}
model: digits-vit
methods: [source-only, tent]
seeds: 2
devices: xavier-nx
"""


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "mine.yaml").write_text(SUITE)
    with registry.isolated():
        yield str(tmp_path / "mine.yaml")


def recorded(make: Make, suite: str, store: Store, **choice: object) -> list[Record]:
    """Records with results of all cells of a suite, written into the store."""
    plan, _ = Selection(suite=suite, store=store.root, **choice).plan()  # type: ignore[arg-type]
    made = []
    for cell in plan.cells:
        record = make(cell.method.name, cell.seed)
        update = {"cell": cell, "identity": cell.identity, "suite": "mine"}
        made.append(record.model_copy(update=update))
        store.write(made[-1])
    return made


@pytest.fixture
def store(make: Make, suite: str, tmp_path: Path) -> Store:
    """The suite's four cells, two of another method and two of another seed."""
    store = Store(tmp_path / "store")
    recorded(make, suite, store)
    recorded(make, suite, store, methods=("shot",))
    recorded(make, suite, store, seeds=(7,))
    return store


def test_what_a_suite_leaves_out_is_said(
    make: Make, store: Store, suite: str, tmp_path: Path
) -> None:
    stale = make("tent", 0)
    store.write(stale)
    warnings: list[str] = []
    plan, _ = Selection(suite=suite).plan()
    old = next(iter(plan.cells))
    method = old.method.model_copy(update={"code": "0ld"})
    changed = old.model_copy(update={"method": method})
    store.write(make().model_copy(update={"cell": changed, "identity": changed.identity}))
    write_report(store, tmp_path / "out", Selection(suite=suite), warnings.append)
    (told,) = [text for text in warnings if text.startswith("6 records left out: ")]
    reasons, _, cure = told.removeprefix("6 records left out: ").partition("; name")
    assert sorted(reasons.split("; ")) == [
        "1 of other settings or older code (source-only)",
        "1 of other streams, models, variants or protocols",
        "2 of other methods (shot)",
        "2 of other seeds (7)",
    ]
    assert cure == " them with --methods, --seeds"
    table = next((tmp_path / "out").glob("table-*.md")).read_text()
    assert "6 records left out" in table
    assert "shot" not in table.partition("Protocol")[0].partition("\n- ")[0]


def test_options_choose_methods_seeds_and_devices(store: Store, tmp_path: Path) -> None:
    report(store.root, tmp_path / "a", methods="tent", seeds="7", device="xavier-nx")
    (table,) = (tmp_path / "a").glob("table-*.md")
    assert "(seed 7)" in table.read_text()
    assert "| source-only |" not in table.read_text()


def test_matching_names_what_no_record_has(make: Make) -> None:
    records = [make("tent", 0), make("shot", 1, device="/boards/my board.yaml")]
    assert matching(records, methods=["shot"]) == records[1:]
    assert matching(records, methods=["all"]) == matching(records, methods=["a", "all"]) == records
    assert matching(records, seeds=[0]) == records[:1]
    for device in ("my board", "/boards/my board.yaml"):
        assert matching(records, devices=[device]) == records[1:]
    for choice, message in (
        ({"methods": ["tant"]}, r"--methods tant: no record is of it; did you mean 'tent'\?"),
        ({"seeds": [5]}, r"--seeds 5: no record is of it; known: 0, 1"),
        ({"devices": ["bord"]}, r"--device bord: no record is of it; did you mean"),
    ):
        with pytest.raises(BenchError, match=message):
            matching(records, **choice)  # type: ignore[arg-type]


def test_one_record_left_out_is_counted_as_one(make: Make) -> None:
    cells = [make("tent", 0).cell]
    assert left_out([summarize(make("tent", 0))], cells) == ""
    assert left_out([summarize(make("tent", 1))], cells) == (
        "1 record left out: 1 of other seeds (1); name them with --seeds"
    )
    others = [summarize(make(f"m{i}", 0)) for i in range(8)]
    assert "8 of other methods (m0, m1, m2, m3, m4, m5 and 2 more)" in left_out(others, cells)


def test_the_command_has_the_options(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = ["--methods", "tent,shot", "--seeds", "0", "--device", "xavier-nx"]
    command = ["bench", "report", "--store", str(store.root), "--out", str(tmp_path / "cli")]
    monkeypatch.setattr(sys, "argv", [*command, *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    text = next((tmp_path / "cli").glob("table-*.md")).read_text()
    assert "(seed 0)" in text
    monkeypatch.setattr(sys, "argv", [*command, "--methods", "none-such"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--methods none-such: no record is of it" in capsys.readouterr().err


@pytest.mark.parametrize("exactly", [False, True])
def test_settings_tuned_on_older_code_are_said(make: Make, exactly: bool) -> None:
    known = TunedMethod(
        settings={"rate": 0.1}, score=0.5, default_score=0.4, trials=3, code="other"
    )
    tuned = Tuned.model_construct(methods={"tent": known})
    same = make("tent", settings="tuned", changed={"rate": 0.1}).cell
    other = make("tent", settings="tuned", changed={"rate": 0.2}).cell
    assert changed_since(tuned, [same], exactly) == ["tent"]
    assert changed_since(tuned, [other], exactly) == ([] if exactly else ["tent"])
    assert changed_since(tuned, [make("shot").cell], exactly) == []


def test_records_tuned_by_a_shipped_suite_are_checked(make: Make) -> None:
    name, file = next((n, f) for n, f in suite_files().items() if tuned_path(f).exists())
    method, found = next(
        (m, t) for m, t in read_tuned(tuned_path(file)).methods.items() if t.settings
    )
    old = make(method, settings="tuned", changed=dict(found.settings), suite=name)
    assert tuned_before_a_change([old]) == (
        f"code changed since the settings were tuned: {method} ('bench tune' searches again)"
    )
    assert tuned_before_a_change([make(method, suite=name), make("tent", settings="tuned")]) == ""
