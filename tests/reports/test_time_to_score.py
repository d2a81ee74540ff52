"""The table of how long a training takes to reach a score."""

from __future__ import annotations

from collections.abc import Callable

from bench.records.record import Record
from bench.reports.comparison import compare
from bench.reports.further_blocks import sheet
from bench.reports.time_to_score import NOTE, time_to_score_block

Make = Callable[..., Record]


def training(make: Make, *scores: tuple[float, float], seed: int = 0, **more: object) -> list:
    """Runs of one method with 1, 2, 4 ... passes: the score and the time of each."""
    return [
        make("fine-tune", seed=seed, after=after, time=time, changed={"epochs": 2**k, **more})
        for k, (after, time) in enumerate(scores)
    ]


def cells(records: list[Record]) -> dict[str, list[str]]:
    (comparison,) = compare(records)
    found = time_to_score_block(comparison)
    assert found is not None
    return {name: values for name, *values in (found.heads, *found.methods)}


def test_the_shortest_run_that_reaches_a_score(make: Make) -> None:
    records = training(make, (0.5, 1.0), (0.76, 2.0), (0.79, 4.0), (0.8, 8.0))
    table = cells(records)
    assert table["method"] == ["72.0 % (s)", "76.0 % (s)", "78.4 % (s)"]
    assert table["fine-tune (epochs=8)"] == ["2.00", "2.00", "4.00"]


def test_means_over_seeds_and_runs_that_do_not_reach_it(make: Make) -> None:
    records = training(make, (0.76, 2.0), (0.8, 4.0))
    records += training(make, (0.5, 2.0), (0.8, 4.0), seed=1)
    slow = training(make, (0.3, 1.0), (0.75, 2.0), rate=0.1)
    slow += training(make, (0.3, 1.0), (0.5, 2.0), seed=1, rate=0.1)
    table = cells([*records, *slow])
    assert [v.split(" ")[0] for v in table["fine-tune (epochs=2)"]] == ["3.00", "3.00", "4.00"]
    assert table["fine-tune (epochs=2, rate=0.1)"] == ["1 of 2 runs", "0 of 2 runs", "0 of 2 runs"]


def test_it_is_the_score_that_counts_where_longer_runs_lose_it(make: Make) -> None:
    table = cells(training(make, (0.8, 1.0), (0.4, 2.0)))
    assert table["fine-tune (epochs=2)"] == ["1.00", "1.00", "1.00"]


def test_there_is_no_table_of_one_length(make: Make) -> None:
    (comparison,) = compare([*training(make, (0.8, 1.0)), make("tent", changed={"epochs": 4})])
    assert time_to_score_block(comparison) is None
    assert NOTE not in sheet(comparison).notes
    (comparison,) = compare(training(make, (0.8, 1.0), (0.9, 2.0)))
    assert NOTE in sheet(comparison).notes
