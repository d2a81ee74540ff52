"""A comparison on a source model at chance bears no conclusion, and says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.records.record import Metric, Record, further_field
from bench.reports.answer import answer_sheet
from bench.reports.chance import no_conclusion
from bench.reports.comparison import compare
from bench.reports.footnotes import footnotes

Make = Callable[..., Record]

COMMONEST = Metric(name="commonest-class", title="commonest class")


def with_commonest(record: Record, value: float) -> Record:
    assert record.results is not None
    record.results.further_metrics = [COMMONEST]
    for domain in record.results.domains:
        domain.measure(further_field(COMMONEST.name, "after"), value)
    return record


@pytest.mark.parametrize(
    ("scores", "commonest", "concludes"),
    [
        ([0.30, 0.31, 0.32], [0.30, 0.32, 0.31], False),  # nothing between them
        ([0.30, 0.31, 0.32], [0.20, 0.21, 0.22], True),
        ([0.30, 0.50, 0.25], [0.24, 0.25, 0.26], False),  # above in the mean, by one seed
        ([0.30], [0.29], True),  # one seed: the mean must do
        ([0.30], [0.30], False),
        ([0.20, 0.21], [0.40, 0.41], False),
    ],
)
def test_source_only_must_be_above_the_commonest_class(
    make: Make, scores: list[float], commonest: list[float], concludes: bool
) -> None:
    records = [
        with_commonest(make("source-only", seed=i, before=s, after=s, final=s), c)
        for i, (s, c) in enumerate(zip(scores, commonest, strict=True))
    ]
    (comparison,) = compare([*records, make("tent", after=0.9)])
    text = no_conclusion(comparison)
    assert bool(text) is not concludes
    assert (footnotes(comparison)[0] == text) is not concludes
    sheet = answer_sheet([comparison])
    assert sheet is not None
    told = "no conclusion: the source model is at chance" in sheet.blocks[0].methods[0]
    assert told is not concludes


def test_it_names_both_numbers(make: Make) -> None:
    record = with_commonest(make("source-only", before=0.2, after=0.2, final=0.2), 0.25)
    (comparison,) = compare([record])
    assert "source-only (20.0 %) is not above" in no_conclusion(comparison)
    assert "scores (25.0 %)" in no_conclusion(comparison)


def test_records_that_do_not_hold_it_are_taken_as_they_are(make: Make) -> None:
    (comparison,) = compare([make("source-only", before=0.1, after=0.1, final=0.1), make("tent")])
    assert no_conclusion(comparison) == ""
