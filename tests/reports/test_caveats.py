"""What a table says of rows that would mislead: older code, other seeds, closed windows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from typing import Any

import pytest

from bench.records.record import Record
from bench.reports.comparison import Comparison, compare
from bench.reports.drawing import sides, styles
from bench.reports.figures import draw
from bench.reports.footnotes import footnotes
from bench.reports.statistics import Estimate, Range
from bench.reports.table_model import blocks
from bench.reports.tables import comma_separated, text
from bench.reports.write import summary

Make = Callable[..., Record]
EARLY = "2026-01-01T00:00:00+00:00"


def by_device(records: list[Record]) -> dict[str, Comparison]:
    return {c.cell.device: c for c in compare(records)}


def names(comparison: Comparison) -> list[str]:
    return [row[0] for block in blocks(comparison)[:1] for row in block.methods]


def said(comparison: Comparison, start: str) -> str:
    return next((note for note in footnotes(comparison) if note.startswith(start)), "")


# --- older code ------------------------------------------------------------------------


def test_rows_of_older_code_are_marked_on_every_device_and_label(make: Make) -> None:
    records = [
        make("mine", device="a"),
        make("mine", device="a", changed={"rate": 0.1}, version="old", started=EARLY),
        make("mine", device="b", version="old", started=EARLY),
        make("mine", device="b", settings="tuned", version="old", started=EARLY),
        make("other", device="b", version="old", started=EARLY),
    ]
    found = by_device(records)
    assert sorted(names(found["a"])) == ["mine", "mine (rate=0.1) §"]
    assert sorted(names(found["b"])) == ["mine [default] §", "mine [tuned] §", "other"]
    for device in ("a", "b"):
        assert "the method changed since these runs" in said(found[device], "§ OLDER CODE: mine")
        assert "other" not in said(found[device], "§ OLDER CODE").partition(": the method")[0]
    rows = csv.DictReader(io.StringIO(comma_separated(found["b"])))
    assert {row["method"]: row["older_code"] for row in rows} == {
        "mine [default]": "1", "mine [tuned]": "1", "other": "0",
    }  # fmt: skip


def test_without_newer_code_nothing_is_marked(make: Make) -> None:
    records = [make(m, device=d, version="old") for m in ("mine", "shot") for d in ("a", "b")]
    for comparison in compare(records):
        assert "§" not in text(comparison)


@pytest.mark.parametrize(
    ("old", "what"),
    [
        ({"stream_version": "old"}, "stream digits"),
        ({"variant_version": "old"}, "variant compressed"),
    ],
)
def test_a_table_of_older_code_says_so(make: Make, old: dict[str, Any], what: str) -> None:
    variant = {"variant": {"ratio": 8}}
    records = [
        make("tent", device="a", **variant),
        make("tent", device="b", started=EARLY, **variant, **old),
    ]
    found = by_device(records)
    assert said(found["b"], "OLDER CODE: ").startswith(f"OLDER CODE: {what} changed since")
    assert said(found["a"], "OLDER CODE: ") == ""


# --- seeds -----------------------------------------------------------------------------


def test_rows_of_fewer_seeds_are_compared_on_their_own(make: Make) -> None:
    records = [make("source-only", s, after=0.5 + s / 100) for s in range(5)]
    records += [make(m, s, after=0.6) for m in ("tent", "shot") for s in (0, 1)]
    records += [make("late", s, after=0.6) for s in (7, 8)]
    (comparison,) = compare(records)
    told = "\n".join(footnotes(comparison))
    assert "over the ok runs, one per seed (seeds 0-4); within the range" in told
    assert "; there is one draw of the source model, whose variation is not in it." in told
    # On seeds 0 and 1 source-only has 50 and 51: t(0.975, 1) = 12.706, s = 0.7071, which is 6.35;
    # on the scale of the logit 6.33 below and 6.31 above.
    assert (
        "Seeds 0, 1 alone: shot, tent; on the same source-only has 50.5 ± 6.3, with which the "
        "column 'vs source-only' compares." in told
    )
    assert "Seeds 7, 8 alone: late; source-only has none of them" in told
    shot = next(row for row in comparison.rows if row.label == "shot")
    assert shot.difference is not None
    assert shot.difference.mean == pytest.approx(0.6 - 0.505)


def test_equal_seeds_need_no_more_words(make: Make) -> None:
    records = [make(m, s) for m in ("source-only", "tent") for s in (2, 3)]
    (comparison,) = compare(records)
    assert "(seeds 2, 3); within" in said(comparison, "±")
    assert "alone" not in "".join(footnotes(comparison))


# --- no effect -------------------------------------------------------------------------


def test_a_row_that_equals_source_only_everywhere_is_named(make: Make) -> None:
    records = []
    for seed in range(2):
        same = {"before": 0.5 + seed / 10, "after": [0.5, 0.6, 0.7, 0.8], "final": 0.5}
        records += [make(m, seed, **same) for m in ("source-only", "inert")]
        records.append(make("moves", seed, **{**same, "after": [0.5, 0.6, 0.8, 0.7]}))
    records.append(make("inert", 7, before=0.5, after=0.5, final=0.5, changed={"x": 1}))
    (comparison,) = compare(records)
    assert said(comparison, "Without effect: ") == (
        "Without effect: inert: every accuracy, of each domain, split and seed, equals that of "
        "source-only."
    )
    rows = csv.DictReader(io.StringIO(comma_separated(comparison)))
    inert = [row["method"] for row in rows if row["without_effect"] == "1"]
    assert inert == ["inert"]


# --- windows ---------------------------------------------------------------------------


def test_a_closed_window_is_marked_on_the_row_with_its_steps(make: Make) -> None:
    records = [
        make("tent", device="slow", windows_closed=3),
        make("tent", device="fast"),
        make("shot", device="slow", windows_closed=1),
        make("source-only", device="slow"),
    ]
    found = by_device(records)
    costs = blocks(found["slow"])[1]
    assert costs.heads[-1] == "window closed on"
    assert {row[0]: row[-1] for row in costs.methods} == {
        "source-only": "–",
        "tent ¶": "3 of 4 domains, 12 of 12 steps",
        "shot ¶": "1 of 4 domains, 4 steps",
    }
    assert "shot on 1 of 4; tent on 3 of 4 domains. Steps are" in said(found["slow"], "¶ The win")
    assert blocks(found["fast"])[1].heads[-1] != "window closed on"
    assert "¶" not in text(found["fast"])


# --- figures ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(95.0, 13.0, 3, Range(0, 100)), (95 - 55.171, 99.66 - 95)),
        (Estimate(5.0, 20.0, 3, Range(0, 100)), (5 - 0.078, 78.007 - 5)),
        (Estimate(2.0, 4.0, 3, Range(0)), (2 - 0.2707, 14.778 - 2)),
        (Estimate(50.0, 4.0, 3), (4.0, 4.0)),
    ],
)
def test_intervals_end_where_the_quantity_does(
    estimate: Estimate, expected: tuple[float, float]
) -> None:
    drawn = sides(estimate)
    assert drawn is not None
    assert (drawn[0][0], drawn[1][0]) == pytest.approx(expected, abs=0.01)


def test_no_interval_is_none() -> None:
    assert sides(Estimate(50.0, None, 1)) is None
    assert sides(Estimate(50.0, 30.0, 2)) is None  # two points say it better


def test_captions_say_where_intervals_end_and_what_marks_mean(make: Make) -> None:
    records = [make("tent", s, after=0.97 + s / 50, windows_closed=1) for s in range(2)]
    comparisons = compare(records)
    stream, tradeoff, memory = draw(comparisons[0], styles(comparisons))
    assert "within 0 to 100 %" in stream.caption
    assert "within 0 to 100 % and above 0 J" in tradeoff.caption
    assert "above 0" in memory.caption
    for drawing in (stream, tradeoff, memory):
        assert "¶ The window closed before the method was done." in drawing.caption
        assert "§" not in drawing.caption


# --- odd records -----------------------------------------------------------------------


def with_results(record: Record, **changes: Any) -> Record:
    return record.model_copy(update={"results": record.results.model_copy(update=changes)})


def odd_records(make: Make) -> list[Record]:
    matrix = {"protocol": {"name": "periodic", "evaluate_all": True}}
    whole = make("tent", 5, matrix=[[0.9, 0.1]] * 2, **matrix)
    costs = make("tent").results.costs
    huge = costs.adaptation_time.model_copy(update={"value": 1e308})
    return [
        with_results(make("tent", 6, **matrix), matrix=[]),
        with_results(make("tent", 7, **matrix), matrix=[[]]),
        with_results(whole, matrix=[[0.9, 0.1], [0.9]]),
        with_results(make("tent", 8, matrix=[[0.9, 0.1]] * 2, **matrix), source_samples=-100),
        with_results(make("tent", 9), source_before=5.57),
        with_results(make("tent", 10), costs=costs.model_copy(update={"adaptation_time": huge})),
    ]


def test_records_that_cannot_be_shown_are_left_out_and_counted(make: Make) -> None:
    good = [make(m, s) for m in ("source-only", "tent") for s in range(2)]
    odd = odd_records(make)
    told = summary([*odd, *good])
    assert told.count("left out, it cannot be shown") == len(odd)
    for record in odd:
        assert record.identity in told
    assert text(compare(good)[0]) in told
    assert "its matrix has not 5 rows and columns for 4 domains" in told


def test_a_protocol_with_an_infinite_number_does_not_stop_the_others(make: Make) -> None:
    odd = make("tent", 11)
    endless = odd.cell.model_copy(update={"protocol": {"name": "periodic", "window_s": math.inf}})
    told = summary([odd.model_copy(update={"cell": endless}), make("tent")])
    assert "left out, it cannot be shown: protocol window_s is inf" in told
    assert "1 of 1" in told


def test_a_variant_without_a_ratio_does_not_stop_the_others(make: Make) -> None:
    odd = make("tent", variant={"ratio": 8})
    variant = odd.cell.variant.model_copy(update={"config": {}})
    odd = odd.model_copy(update={"cell": odd.cell.model_copy(update={"variant": variant})})
    assert "left out, it cannot be shown: KeyError: 'ratio'" in summary([odd, make("tent")])
