"""The answer first: the best method by device, its margin, how sure that is, and budgets."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import BenchError
from bench.records.record import Record
from bench.reports.answer import Ranked, answer_of, answer_sheet, how_sure, ranking
from bench.reports.comparison import compare
from bench.reports.paired import paired
from bench.reports.statistics import Run
from bench.reports.tables import sheet_latex, sheet_markdown, sheet_text
from bench.reports.write import files, summary

Make = Callable[..., Record]
GOLDEN = Path(__file__).parent / "golden"
MOVES = (-0.02, 0.0, 0.02, -0.01, 0.01)


def some(make: Make) -> list[Record]:
    """Five seeds on two devices: tent leads by 8 points on one, by an unsure point on the other."""
    records = []
    for seed, move in enumerate(MOVES):
        for device, shot in (("nano", 0.52 + move), ("xavier", 0.59 - move)):
            on = {"device": device}
            records += [
                make("source-only", seed, after=0.5 + move, time=0.0, energy=0.0, memory=8e6, **on),
                make("tent", seed, after=0.6 + move + seed / 1000, energy=12.0, **on),
                make("shot", seed, after=shot, energy=2.5, memory=70e6, **on),
                make("meterless", seed, after=0.3 + move, energy=None, **on),
                make("fine-tune", seed, after=0.9, supervised=True, **on),
                make("cotta", seed, after=0.95, settings="oracle", changed={"rate": 1}, **on),
            ]
    return records


@pytest.mark.parametrize("suffix", ["txt", "md"])
def test_golden(make: Make, suffix: str) -> None:
    made = answer_sheet(compare(some(make)), {"energy": 3.0, "memory": 60.0})
    assert made is not None
    told = {"txt": sheet_text, "md": sheet_markdown}[suffix](made)
    path = GOLDEN / f"answer.{suffix}"
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        path.write_text(told, encoding="utf-8")
    assert told == path.read_text(encoding="utf-8")


def test_the_best_sees_no_labels_and_its_margin_is_paired(make: Make) -> None:
    nano, xavier = compare(some(make))
    answer = answer_of(nano)
    assert answer is not None
    assert (answer.best.label, answer.runner_up and answer.runner_up.label) == ("tent", "shot")
    assert answer.margin is not None
    # 8 points and 0, .1, .2, .3, .4 more: mean 8.2, s = 0.158114, t(0.975, 4) = 2.776445.
    low, high = answer.margin.difference.scaled(100).interval or (0, 0)
    half = 2.776445 * math.sqrt(0.025) / math.sqrt(5)
    assert (low, high) == (pytest.approx(8.2 - half, rel=1e-5), pytest.approx(8.2 + half, rel=1e-5))
    assert answer.tied == ()
    unsure = answer_of(xavier)
    assert unsure is not None
    assert unsure.best.label == "tent"
    # The seeds move shot the other way, so that the interval of 1.2 points holds 0.
    assert [row.label for row in unsure.tied] == ["shot"]
    assert [row.label for row in ranking(nano)] == ["tent", "shot", "source-only", "meterless"]


def test_runs_that_are_not_the_same_are_told(make: Make) -> None:
    records = [make("tent", s, after=0.6 + s / 100) for s in range(2)]
    records += [make("shot", s, after=0.6 - s / 100) for s in range(4)]
    sheet = answer_sheet(compare(records))
    assert sheet is not None
    assert sheet.blocks[0].methods[0][6] == "2"
    assert sheet.notes[-1].endswith(
        ": tent has 2 runs and shot 4; the margin is over the 2 that both have."
    )


def test_how_sure_says_where_n_is_too_small() -> None:
    def known(n: int, lead: float = 0.1) -> str:
        a = {Run(0, seed): 0.5 + lead + seed / 1000 for seed in range(n)}
        b = {Run(0, seed): 0.5 for seed in range(n)}
        return how_sure(paired(a, b))

    assert known(1) == "n too small (1 pair)"
    assert known(2) == "n too small (2 pairs)"
    assert known(3) == "distinguishable from all others; 3 pairs, too few for a test"
    # All of six differences above 0: 2 / 2^6.
    assert known(6) == "distinguishable from all others; p 0.031"
    equal = {Run(0, seed): 0.5 for seed in range(8)}
    other = equal | {Run(0, seed): 0.4 for seed in range(4)}
    told = how_sure(paired(equal, other))
    assert told == "distinguishable from all others; too few of 8 pairs differ for a test"
    assert how_sure(None) == "no run in common"


def test_the_best_is_told_from_every_other_and_not_from_the_next_alone(make: Make) -> None:
    """The third may be noisier than the second, so that the second alone is distinguishable."""
    scores = {"a": [0.70, 0.71, 0.72], "b": [0.69, 0.70, 0.71], "c": [0.8, 0.3, 0.6],
              "d": [0.75, 0.3, 0.6], "e": [0.7, 0.3, 0.6]}  # fmt: skip
    records = [make(m, s, after=v) for m, each in scores.items() for s, v in enumerate(each)]
    sheet = answer_sheet(compare(records))
    assert sheet is not None
    (row,) = sheet.blocks[0].methods
    assert row[1:3] == ("a", "b")
    assert row[3] == "not distinguishable from c, d and 1 more; 3 pairs, too few for a test"
    assert row[5] == "+1.0 ± 0.0"
    (sure,) = answer_sheet(compare(records[:6])).blocks[0].methods  # type: ignore[union-attr]
    assert sure[3] == "distinguishable from all others; 3 pairs, too few for a test"


def test_steps_say_from_which_amount_on_the_answer_changes(make: Make) -> None:
    given = {"source-only": (0.5, 0.0), "tent": (0.6, 2.0), "bad": (0.4, 3.0), "shot": (0.7, 5.0)}
    records = [
        make(m, s, after=after + s / 1000, energy=energy + s)
        for m, (after, energy) in given.items()
        for s in range(3)
    ]
    (comparison,) = compare(records)
    ranked = Ranked(comparison)
    steps = [
        (limit, a.best.label, a.runner_up and a.runner_up.label)
        for limit, a in ranked.steps("energy")
    ]
    # From the dearest of three runs, which take up to 2 J more; bad changes nothing.
    assert steps == [
        (2.0, "source-only", None), (4.0, "tent", "source-only"), (7.0, "shot", "tent"),
    ]  # fmt: skip
    for limit, found in ((6.9, "tent"), (7.0, "shot"), (100.0, "shot")):
        answer = ranked.answer({"energy": limit})
        assert answer is not None
        assert answer.best.label == found
    assert ranked.answer({"energy": 1.9}) is None


def test_within_a_budget_every_run_is(make: Make) -> None:
    records = [make("source-only", s, after=0.5, energy=0.0, memory=8e6) for s in range(3)]
    records += [make("tent", s, after=0.6, energy=2.0 + s) for s in range(3)]
    sheet = answer_sheet(compare(records), {"energy": 3.5})
    assert sheet is not None
    (row,) = sheet.blocks[1].methods
    # Tent takes 3 J in the mean, and 4 J in its last run.
    assert row[1:5] == ("source-only", "–", "no other method", "50.0 ± 0.0")
    assert row[-1] == "-10.0 ± 0.0"
    sheet = answer_sheet(compare(records), {"energy": 4.0, "memory": 50.0})
    assert sheet is not None
    assert sheet.blocks[1].methods[0][1:3] == ("tent", "source-only")
    assert sheet.blocks[1].methods[0][-1] == "–"


def test_a_budget_that_nothing_meets_names_the_least(make: Make) -> None:
    records = [make("tent", energy=12.0), make("shot", energy=9.5), make("dark", energy=None)]
    sheet = answer_sheet(compare(records), {"energy": 1.0})
    assert sheet is not None
    assert sheet.blocks[1].methods[0][1] == "none; least energy 9.5 J (shot)"
    assert "Not looked at, adaptation energy unavailable: dark." in sheet.notes
    sheet = answer_sheet(compare([make("dark", energy=None)]), {"energy": 1.0})
    assert sheet is not None
    assert sheet.blocks[1].methods[0][1] == "none; no such cost is known"


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_budget_is_an_amount(make: Make, tmp_path: Path, value: float) -> None:
    with pytest.raises(BenchError, match=r"--max-memory \S+: give MB from 0 up, as --max-memory 3"):
        files([make("tent")], tmp_path, max_memory=value)


def test_one_method_and_no_method(make: Make) -> None:
    sheet = answer_sheet(compare([make("tent")]))
    assert sheet is not None
    assert sheet.blocks[0].methods[0][1:4] == ("tent", "–", "no other method")
    assert answer_sheet(compare([make("fine-tune", supervised=True)])) is None
    assert answer_sheet(compare([make("tent", status="failed")])) is None


def test_it_stands_first_everywhere(make: Make, tmp_path: Path) -> None:
    records = some(make)
    assert summary(records).startswith("Answer\n\nBest method without labels of the target\n")
    paths = files(records, tmp_path, max_energy=3.0)
    assert tmp_path / "answer.md" in paths
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index('id="answer"') < page.index('id="how-to-read"')
    assert "adaptation energy up to 3 J" in page


def test_where_all_see_labels_it_says_so(make: Make) -> None:
    """Where new classes arrive no row is a reference: all that train need the labels."""

    def of(name: str, seed: int, after: float, *needs: str) -> Record:
        record = make(name, seed, after=after + seed / 100)
        facts = record.method.model_copy(update={"needs": list(needs)})
        return record.model_copy(update={"method": facts})

    records = [of("source-only", s, 0.4) for s in range(3)]
    records += [of("gem", s, 0.6, "target_labels", "replay_memory") for s in range(3)]
    told = summary(records)
    assert told.startswith("Answer\n\nBest method\n")
    assert "without labels" not in told
    assert "of the methods that compete, with the labels of the target domains" in " ".join(
        told.split()
    )
    both = summary([*records, *(make("tent", s, device="other") for s in range(3))])
    assert "or all where these are given" in " ".join(both.split())


def test_many_and_long_names_stay_readable(make: Make) -> None:
    records = [make("m" * 300, seed, after=0.6 + seed / 10) for seed in range(3)]
    records += [
        make(f"m{i:03d}", s, after=0.6 + s / 10 - i / 1e5) for i in range(200) for s in range(3)
    ]
    sheet = answer_sheet(compare(records))
    assert sheet is not None
    lines = sheet_text(sheet).splitlines()
    assert max(map(len, lines)) <= 120
    assert sheet_latex(sheet).count(r"\begin{table*}") == 1


# --- notes that are said once ------------------------------------------------------------


def test_notes_of_several_tables_stand_once(make: Make, tmp_path: Path) -> None:
    told = summary(some(make))
    meaning = "- [2] Accuracy is the mean over 4 target domains: before = on arrival; after = once"
    assert told.count("Accuracy is the mean over 4 target domains") == 1
    assert meaning in told
    assert told.count("of all tables: at the end.") == 2
    # What holds of one table alone stays there.
    assert told.count("profile board x counted step") <= 1
    files(some(make), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("Accuracy is the mean over 4 target domains") == 1
    assert page.index("Accuracy is the mean over") > page.index('id="notes"')
    # A file by itself says everything.
    for path in tmp_path.glob("table-*.md"):
        assert "Accuracy is the mean over 4 target domains" in path.read_text(encoding="utf-8")


def test_oracles_are_warned_of_under_each_table(matrix: list[Record]) -> None:
    cells = [record.cell.model_copy(update={"device": "other"}) for record in matrix]
    other = [
        record.model_copy(update={"cell": cell, "identity": cell.identity})
        for record, cell in zip(matrix, cells, strict=True)
    ]
    assert summary([*matrix, *other]).count("‡ ORACLE: settings selected") == 2


def test_a_plugins_method_is_yours(make: Make) -> None:
    records = [make("mine", provenance="plugin"), make("tent", provenance="chosen-here")]
    told = summary(records)
    line = next(row for row in told.splitlines() if row.startswith("mine    yours"))
    assert line
    assert "ours = chosen here; yours = from a plugin, or registered at run time." in told.replace(
        "\n  ", " "
    )
