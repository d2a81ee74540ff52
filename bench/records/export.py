"""Records as a table for analysis: one tidy pandas DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bench.records.cell import variant_title
from bench.records.record import Amount, Record

if TYPE_CHECKING:
    import pandas as pd

CELL = {
    "identity": "object", "suite": "object", "method": "object", "model": "object",
    "variant": "object", "stream": "object", "device": "object", "seed": "int64",
    "source_draw": "int64", "protocol": "object", "settings_origin": "object",
    "target_labels": "bool", "status": "object", "reason": "object",
    "attempt": "int64", "wall_s": "float64",
}  # fmt: skip
"""Columns of every cell.

``source_draw``: which draw of the source model, from 0; ``settings_origin``: default, given (by the
suite), tuned or oracle; ``wall_s``: of the run.
"""
DOMAIN = {
    "domain": "object", "before": "float64", "after": "float64", "final": "float64",
    "online": "float64", "adapted": "float64", "adaptation_samples": "Int64",
    "test_samples": "Int64", "steps": "Int64", "time_s": "float64", "energy_j": "float64",
    "window_closed": "boolean",
}  # fmt: skip
"""Columns of `bench.records.record.DomainResult`; missing where the cell has no results."""
COSTS = {
    "adaptation_time_s": "adaptation_time",
    "adaptation_energy_j": "adaptation_energy",
    "peak_memory_bytes": "peak_memory",
    "runtime_memory_bytes": "runtime_memory",
    "resident_memory_bytes": "resident_memory",
    "source_storage_bytes": "source_storage",
    "inference_time_s": "inference_time",
    "inference_energy_j": "inference_energy",
}
"""Columns of a cell's costs, and their fields in `bench.records.record.Costs`."""
WHOLE = {
    "score": "float64",
    "source_before": "float64",
    "source_after": "float64",
    "forgetting": "float64",
    **dict.fromkeys(COSTS, "float64"),
    "flops": "float64",
    "costs_are": "object",
    "metric": "object",
}
"""Columns of a cell's whole stream, repeated in each of its rows.

``costs_are``: ``measured`` or ``modelled``; ``metric``: what the scores are. Inference is per
sample.
"""


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """A row for each cell and domain, in the order of the records and the stream.

    A cell without results has one row, whose ``domain`` is missing. Columns: `CELL`, `DOMAIN`,
    those of further numbers that domains have (``macro_f1_after``), `WHOLE`. Accuracies are in
    [0, 1]; what is unknown or unavailable is missing.
    """
    import pandas as pd

    rows = [row for record in records for row in _rows(record)]
    named = dict.fromkeys(name for row in rows for name in row)
    further = {n: "float64" for n in named if n not in {*CELL, *DOMAIN, *WHOLE}}
    types = {**CELL, **DOMAIN, **further, **WHOLE}
    return pd.DataFrame(rows, columns=list(types)).astype(types)


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    cell, results = record.cell, record.results
    row: dict[str, Any] = {name: getattr(record, name, None) for name in CELL} | {
        "method": cell.method.name,
        "model": cell.model.name,
        "variant": variant_title(cell.variant) or "full",
        "stream": cell.stream.name,
        "device": cell.device_title,
        "seed": cell.seed,
        "source_draw": cell.source_draw,
        "protocol": cell.protocol.get("name", "periodic"),
        "settings_origin": cell.settings_origin,
        "target_labels": cell.target_labels,
    }
    if results is None:
        yield row
        return
    row |= {name: getattr(results, name) for name in WHOLE if hasattr(results, name)}
    for column, field in COSTS.items():
        amount: Amount | None = getattr(results.costs, field)
        row[column] = None if amount is None else amount.value
    row["metric"] = results.metric.name
    row["flops"] = results.costs.flops
    row["costs_are"] = results.costs.adaptation_time.kind
    for domain in results.domains:
        values = {name: getattr(domain, name) for name in DOMAIN if name != "domain"}
        values |= domain.__pydantic_extra__  # what the protocol or the task measured besides
        yield {**row, "domain": domain.name, **values}
