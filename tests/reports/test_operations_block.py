"""The table of operations, as a paper counts them and as executed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.records.record import Amount, Record
from bench.reports.comparison import compare
from bench.reports.further_blocks import sheet
from bench.reports.operations_block import COUNT, NOTE, operations_block

Make = Callable[..., Record]


def training(make: Make, seed: int, counted: float | None, executed: float) -> Record:
    record = make("fine-tune", seed=seed)
    kind: Any = "unavailable" if counted is None else "modelled"
    amount = Amount(value=counted, unit="MAC", kind=kind, how="published")
    costs = record.results.costs.model_copy(update={COUNT: amount, "flops": executed})
    results = record.results.model_copy(update={"costs": costs})
    return record.model_copy(update={"results": results})


def test_means_over_seeds(make: Make) -> None:
    records = [training(make, 0, 40e9, 100e9), training(make, 1, 60e9, 120e9), make("tent")]
    (comparison,) = compare(records)
    found = operations_block(comparison)
    assert found is not None
    assert found.heads == (
        "method", "counted (1e9)", "executed (1e9)", "half of executed (1e9)",
    )  # fmt: skip
    ((name, *cells),) = (*found.methods, *found.references)
    assert name == "fine-tune"
    assert [cell.split(" ")[0] for cell in cells] == ["50.0", "110", "55.0"]
    assert NOTE in sheet(comparison).notes


def test_where_nothing_is_counted_there_is_no_table(make: Make) -> None:
    (comparison,) = compare([training(make, 0, None, 100e9), make("tent")])
    assert operations_block(comparison) is None
    assert NOTE not in sheet(comparison).notes
