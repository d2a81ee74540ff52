"""Records as a tidy table: a row for each cell and domain, with what is missing missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from bench.records.export import CELL, COSTS, DOMAIN, WHOLE, to_frame
from bench.records.record import Record

SAMPLE = Path(__file__).parent / "samples" / "schema-1.json"


def test_a_row_holds_a_domain_its_cell_and_the_whole_stream() -> None:
    record = Record.model_validate(json.loads(SAMPLE.read_text()))
    assert record.results is not None
    table = to_frame([record])
    assert list(table) == [*CELL, *DOMAIN, *WHOLE]
    assert list(table.domain) == [domain.name for domain in record.results.domains]
    for column in ("before", "after", "final", "steps", "time_s"):
        assert list(table[column]) == [getattr(d, column) for d in record.results.domains]
    for column, field in COSTS.items():
        amount = getattr(record.results.costs, field)
        value = None if amount is None else amount.value
        same = table[column].isna() if value is None else table[column] == value
        assert same.all(), column
    assert set(table.score) == {record.results.score}
    assert set(table.method) == {record.cell.method.name}


def test_what_domains_have_besides_are_columns_of_their_own() -> None:
    record = Record.model_validate(json.loads(SAMPLE.read_text()))
    assert record.results is not None
    for i, domain in enumerate(record.results.domains):
        domain.measure("macro_f1_after", i / 10)
    table = to_frame([record])
    assert list(table) == [*CELL, *DOMAIN, "macro_f1_after", *WHOLE]
    assert list(table.macro_f1_after) == [i / 10 for i in range(len(table))]


def test_a_cell_without_results_is_one_row_with_its_reason(make_record: Callable[..., Any]) -> None:
    table = to_frame([make_record()])
    (row,) = table.to_dict("records")
    assert (row["status"], row["reason"], row["variant"]) == ("failed", "a reason", "full")
    assert pd.isna(row["domain"])
    assert pd.isna(row["after"])
    assert pd.isna(row["costs_are"])


def test_types_do_not_depend_on_the_records(make_record: Callable[..., Any]) -> None:
    full = to_frame([Record.model_validate(json.loads(SAMPLE.read_text()))])
    for records in ([], [make_record()]):
        assert list(to_frame(records).dtypes) == list(full.dtypes)
    assert full.groupby("method").after.mean().notna().all()
