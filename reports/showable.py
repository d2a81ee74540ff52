"""Which records a report can show: one odd file must not cost a reader all the others."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench.io.digest import digest
from bench.records.record import Record

from .aggregate import clean, shorten
from .metrics import COSTS, MEASURES, columns

LARGEST_COST = 1e18
"""Of seconds, joules and bytes; sums over seeds stay finite below it."""


def showable(records: Iterable[Record]) -> tuple[list[Record], list[str]]:
    """The records with contents that can be shown, and one line for each other that says why."""
    kept, told = [], []
    for record in records:
        try:
            why = _problem(record)
        except Exception as error:  # whatever somebody wrote into a file
            why = f"{type(error).__name__}: {error}"
        if why:
            brief = shorten(clean(why), 120)
            told.append(f"record {record.identity} left out, it cannot be shown: {brief}")
        else:
            kept.append(record)
    return kept, told


def _problem(record: Record) -> str:
    """What is wrong with a record's contents; empty, or an exception, if something is."""
    cell = record.cell
    for name, value in cell.protocol.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"protocol {name} is {value}"
    digest(cell.model_dump(mode="json"))
    digest(record.method.changed)
    columns(cell.protocol)
    if not (cell.model_title and cell.device_title):
        return "its model or device has no name"
    results = record.results
    if results is None or not results.domains:
        return ""
    scores = [(d.before, d.after, d.final, d.online, d.adapted) for d in results.domains]
    known = [v for values in scores for v in values if v is not None]
    known += [results.source_before, results.source_after]
    if results.matrix is not None:
        size = len(results.domains) + 1
        if [len(row) for row in results.matrix] != [size] * size:
            return f"its matrix has not {size} rows and columns for {size - 1} domains"
        known += [v for row in results.matrix for v in row]
    wrong = [v for v in known if not 0 <= v <= 1]
    if wrong:
        return f"accuracy {wrong[0]:g} is outside 0 to 1"
    further = [results.further(metric.name) for metric in results.further_metrics]
    if odd := [v for v in further if v is not None and not abs(v) <= LARGEST_COST]:
        return f"a further metric is {odd[0]:g}, above {LARGEST_COST:g}"
    for measure in MEASURES.values():
        measure.value(results)
    for column in COSTS.values():
        amount = column.amount(results.costs)
        value = None if amount is None else amount.value
        if value is not None and not abs(value) <= LARGEST_COST:
            return f"{column.head} {value:g} is above {LARGEST_COST:g}"
    return ""
