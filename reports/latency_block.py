"""The table of what an offloaded sample takes, by where its time goes."""

from __future__ import annotations

from bench.records.record import Amount

from .aggregate import Row
from .comparison import Comparison
from .statistics import ANY, estimate
from .table_model import DASH, Block, block, cost_number

WHOLE = "latency"
COLUMNS = {
    "latency_local": ("device", "ms", 1e3),
    "latency_encoding": ("encoding", "ms", 1e3),
    "latency_transmission": ("link", "ms", 1e3),
    "latency_remote": ("server", "ms", 1e3),
    WHOLE: ("whole", "ms", 1e3),
    "bytes_sent": ("bytes", "B", 1.0),
    "offload_energy": ("energy", "mJ", 1e3),
}
"""By the name of a record's further cost: the head, and the unit with its factor."""

NOTE = (
    "A sample's latency: prediction on the device, coding, bytes over the link's rate with the "
    "deadlines of lost ones, and the server; it counts the samples too that are not sent."
)


def latency_block(comparison: Comparison) -> Block | None:
    """Means over the runs; None where no record tells a latency in parts."""
    rows = [row for row in comparison.rows if any(_amounts(row, WHOLE))]
    if not rows:
        return None

    def cells(row: Row) -> list[str]:
        return [_cell(row, name, factor) for name, (_, _, factor) in COLUMNS.items()]

    heads = ["method"]
    for name, (head, unit, _) in COLUMNS.items():
        amounts = [a for row in rows for a in _amounts(row, name)]
        kinds = sorted({a.kind for a in amounts if a is not None and a.value is not None})
        heads.append(f"{head} ({', '.join([unit, ' and '.join(kinds)]) if kinds else unit})")
    return block(rows, "Latency, bytes and energy of a sample", heads, cells)


def _amounts(row: Row, name: str) -> list[Amount | None]:
    return [results.costs.get(name) for results in row.results.values()]


def _cell(row: Row, name: str, factor: float) -> str:
    known = {run: results.costs.get(name) for run, results in row.results.items()}
    told = {run: a for run, a in known.items() if a is not None}
    values = {run: a.value * factor for run, a in told.items() if a.value is not None}
    if not values:
        return "unavailable" if told else DASH
    return cost_number(estimate(values, ANY))
