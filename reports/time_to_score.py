"""The table of how long a training takes to reach a score, from runs of different lengths."""

from __future__ import annotations

import json
from collections import defaultdict

from .aggregate import Row
from .comparison import Comparison
from .statistics import POSITIVE, Run, estimate
from .table_model import DASH, Block, block, cost_number

LENGTH = "epochs"
"""The setting by which rows of one method differ: its passes over a domain."""
SHARES = (0.9, 0.95, 0.98)

NOTE = (
    "Time to a score: adaptation time over the stream of the shortest run that reaches it, among "
    "rows of a method that differ in their passes alone; mean over the runs, or how many of them "
    "reach it. The scores are, of the best mean that these rows have, "
    f"{', '.join(f'{100 * share:.0f} %' for share in SHARES)}."
)


def time_to_score_block(comparison: Comparison) -> Block | None:
    """A row for each method that the comparison has at several numbers of passes; None without.

    Named by the longest of a method's rows.
    """
    families = defaultdict[str, list[Row]](list)
    for row in comparison.drawn:
        config = row.runs[0].cell.method.config
        if LENGTH in config and row.scores:
            settings = {name: value for name, value in config.items() if name != LENGTH}
            key = [row.runs[0].cell.method.name, row.supervised, settings]
            families[json.dumps(key, sort_keys=True)].append(row)
    of = {max(rows, key=_passes).label: rows for rows in families.values() if len(rows) > 1}
    if not of:
        return None
    means = [sum(r.scores.values()) / len(r.scores) for rows in of.values() for r in rows]
    targets = [round(share * max(means), 3) for share in SHARES]

    def cells(row: Row) -> list[str]:
        return [_cell(of[row.label], target) for target in targets]

    heads = ["method", *(f"{100 * target:.1f} % (s)" for target in targets)]
    shown = [row for row in comparison.drawn if row.label in of]
    return block(shown, "Adaptation time to a score", heads, cells)


def _passes(row: Row) -> int:
    return int(row.runs[0].cell.method.config[LENGTH])


def _cell(rows: list[Row], target: float) -> str:
    """The least time in which each run reaches the score, over the runs that all rows have."""
    shared = set.intersection(*(set(row.scores) & set(row.amounts("time")) for row in rows))
    least: dict[Run, float] = {}
    for row in sorted(rows, key=_passes, reverse=True):
        times = row.amounts("time")
        least |= {run: times[run] for run in shared if row.scores[run] >= target}
    if not shared:
        return DASH
    if len(least) < len(shared):
        return f"{len(least)} of {len(shared)} runs"
    return cost_number(estimate(least, POSITIVE))
