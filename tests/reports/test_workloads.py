"""The displays across suites: score, memory and energy by workload, beside published numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.table_model import Block
from bench.reports.tables import sheet_latex, sheet_markdown, sheet_text
from bench.reports.workloads import workload_sheets
from bench.reports.write import files, summary

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
AFTER = {"source-only": 0.5, "tent": 0.55, "cua": 0.6, "edgeta": 0.7}


def of_suite(make: Make, suite: str, n: int, shift: float = 0.0, **more: Any) -> list[Record]:
    """Two seeds of four methods and a reference; ``n`` tells the streams apart."""
    records = []
    for seed in range(2):
        for i, (method, after) in enumerate(AFTER.items()):
            given: dict[str, Any] = {
                "after": after + shift * (method == "edgeta") + 0.01 * seed,
                "energy": [0.0, 10.0, 40.0, 20.0][i],
                "memory": [20e6, 40e6, 80e6, 60e6][i],
                "stream": {"size": n},
            }
            records.append(make(method, seed, **given | more))
        records.append(make("ewc", seed, supervised=True, after=0.9, stream={"size": n}, **more))
    return [record.model_copy(update={"suite": suite}) for record in records]


def some(make: Make) -> list[Record]:
    records = of_suite(make, "edgeta-clip", 1) + of_suite(make, "edgeta-sam", 2, shift=-0.02)
    lame = make("lame", 0, status="unsupported", reason="classification only", stream={"size": 2})
    broken = make("sar", 0, status="oom", reason="memory", stream={"size": 2})
    return [*records, *(r.model_copy(update={"suite": "edgeta-sam"}) for r in (lame, broken))]


def blocks(records: list[Record]) -> dict[str, Block]:
    (sheet,) = workload_sheets(compare(records))
    return {block.title: block for block in sheet.blocks}


@pytest.mark.parametrize("suffix", ["txt", "md", "tex"])
def test_golden(make: Make, suffix: str) -> None:
    (sheet,) = workload_sheets(compare(some(make)))
    form = {"txt": sheet_text, "md": sheet_markdown, "tex": sheet_latex}[suffix]
    path = GOLDEN / f"workloads.{suffix}"
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        path.write_text(form(sheet), encoding="utf-8")
    assert form(sheet) == path.read_text(encoding="utf-8")


def test_every_display_has_a_column_for_each_suite_and_says_why_a_cell_is_empty(make: Make) -> None:
    found = blocks(some(make))
    score = found["Score (%)"]
    assert score.heads == ("method", "edgeta-clip", "edgeta-sam")
    rows = {row[0]: row[1:] for row in score.methods}
    assert next(iter(rows)) == "source-only"
    assert rows["lame"] == ("–", "n/a")
    assert rows["sar"] == ("–", "oom")
    assert rows["edgeta"][0].startswith("70.5")
    assert rows["edgeta"][1].startswith("68.5")
    assert [row[0] for row in score.references] == ["ewc †"]
    memory = {row[0]: row[1:] for row in found["Peak memory (MB)"].methods}
    assert memory["cua"] == ("80.0", "80.0")
    energy = {row[0]: row[1:] for row in found["Adaptation energy (J)"].methods}
    assert energy["edgeta"] == ("20.0", "20.0")


def test_edgeta_against_the_others_beside_the_published_numbers(make: Make) -> None:
    found = blocks(some(make))
    against = found["EdgeTA against the other methods"]
    rows = {row[0]: row[1:] for row in (*against.methods, *against.references)}
    assert set(rows) == {"tent", "cua", "mean over methods", "published"}  # no control, no failure
    # Means over the two workloads: 15 and 13 points above tent, 10 and 8 above cua.
    assert rows["tent"][0].startswith("+14.0")
    assert rows["cua"][0].startswith("+9.0")
    assert rows["mean over methods"] == ("+11.5", "+6.1", "+0.0", "–")
    assert rows["tent"][1:] == ("+50.0", "+100.0", "2")  # 60 of 40 MB, 20 of 10 J
    assert rows["cua"][1:] == ("-25.0", "-50.0", "2")
    assert rows["published"] == ("+21.88", "-27.14", "-65.65", "–")
    assert math.isclose(math.sqrt(1.5 * 0.75), 1.061, abs_tol=1e-3)  # geometric, of both
    five = found["Further foundation models against CUA"]
    assert [(row[0], row[3][:4], row[4]) for row in five.methods] == [
        ("edgeta-clip", "+10.", "+12.71"),
        ("edgeta-sam", "+8.0", "+7.36"),
    ]


def test_devices_have_displays_of_their_own_and_one_suite_has_none(make: Make) -> None:
    one = of_suite(make, "mini-pacs", 1)
    assert workload_sheets(compare(one)) == []
    other = of_suite(make, "mini-ewt", 2)
    elsewhere = of_suite(make, "mini-ewt", 2, device="other")
    assert len(workload_sheets(compare([*one, *other, *elsewhere]))) == 1
    more = [*one, *other, *elsewhere, *of_suite(make, "mini-pacs", 1, device="other")]
    sheets = workload_sheets(compare(more))
    assert [sheet.slug for sheet in sheets] == ["workloads-board", "workloads-other"]


def test_many_suites_stand_in_several_tables(make: Make) -> None:
    records = [r for i in range(8) for r in of_suite(make, f"mini-{i}", i)]
    found = blocks(records)
    assert len(found["Score (%) 1"].heads) == 7
    assert found["Score (%) 2"].heads == ("method", "mini-6", "mini-7")
    assert "Further foundation models against CUA" not in found


def test_methods_listed_twice_keep_their_labels(make: Make) -> None:
    records = of_suite(make, "mini-a", 1) + of_suite(make, "mini-b", 2)
    twice = make("tent", 0, changed={"epochs": 9}, after=0.4, stream={"size": 2})
    found = blocks([*records, twice.model_copy(update={"suite": "mini-b"})])
    names = [row[0] for row in found["Score (%)"].methods]
    assert "tent" in names
    assert any("epochs" in name for name in names)


def test_the_summary_and_the_files_have_them(make: Make, tmp_path: Path) -> None:
    records = some(make)
    assert "All workloads · board" in summary(records)
    names = {path.name for path in files(records, tmp_path)}
    assert {"table-workloads-board.md", "table-workloads-board.tex"} <= names
    page = (tmp_path / "report.html").read_text()
    assert 'id="workloads-board"' in page
    assert "Further foundation models against CUA" in page
