"""How far modelled costs are off: tables, papers and the page say it where records hold it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from report_files import written

from bench.records.record import ProfileError, Record
from bench.reports.comparison import compare
from bench.reports.page_data import captions
from bench.reports.write import summary

Make = Callable[..., Record]
UNKNOWN = "how far the cost model itself is off is in no record"
STATED = (
    "The device's profile is off by 5.41 % in time and 10.7 % in memory in the median, in energy "
    "by an unknown share (bench device check: 38 steps)."
)


def stated(record: Record, time: float = 0.0541) -> Record:
    assert record.results is not None
    error = ProfileError(time=time, memory=0.107, source="bench device check: 38 steps.")
    costs = record.results.costs.model_copy(update={"profile_error": error})
    results = record.results.model_copy(update={"costs": costs})
    return record.model_copy(update={"results": results})


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def records(make: Make) -> list[Record]:
    return [make(method, seed) for method in ("source-only", "tent") for seed in range(2)]


def test_tables_papers_and_captions_say_what_the_profile_states(
    records: list[Record], tmp_path: Path
) -> None:
    known = [stated(each) for each in records]
    told = one_line(summary(known))
    assert STATED in told
    assert "is its spread over runs, left out where there is none. The device's" in told
    assert UNKNOWN not in told
    paper = written(tmp_path, known, columns=["accuracy", "energy"])["paper.md"].decode()
    assert STATED in paper
    (comparison,) = compare(known)
    assert captions(comparison)["tradeoff"].endswith(STATED)


def test_where_none_is_stated_that_is_said(records: list[Record], tmp_path: Path) -> None:
    assert UNKNOWN in one_line(summary(records))
    (comparison,) = compare(records)
    assert "profile is off" not in captions(comparison)["tradeoff"]
    assert (
        "profile is off" not in written(tmp_path, records, columns=["energy"])["paper.md"].decode()
    )


def test_runs_with_and_without_and_with_another_are_told_apart(records: list[Record]) -> None:
    mixed = [stated(records[0]), stated(records[1], 0.3), *records[2:]]
    told = one_line(summary(mixed))
    assert STATED in told
    assert "off by 30 % in time" in told
    assert "Records of other runs do not tell it." in told


def test_measured_costs_have_no_model(make: Make) -> None:
    measured = [make(method, kind="measured") for method in ("source-only", "tent")]
    assert "cost model" not in summary(measured)
