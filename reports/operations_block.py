"""The table of what training a language model takes: as a paper counts it, and as executed."""

from __future__ import annotations

from .aggregate import Row
from .comparison import Comparison
from .statistics import ANY, Run, estimate
from .table_model import DASH, Block, block, cost_number

COUNT = "training_count"
"""The further cost of a record that holds the paper's count."""
GIGA = 1e9

NOTE = (
    "Counted: multiply-accumulates of the training steps by the formulas of GreenTrainer's paper. "
    "Executed: operations of all that adaptation ran, optimizer, probes and elementwise ones too; "
    "two are a multiply-accumulate, so that half of them compares with the count."
)


def operations_block(comparison: Comparison) -> Block | None:
    """Means over the runs; None where no record has such a count."""
    rows = [row for row in comparison.rows if any(_counts(row).values())]
    if not rows:
        return None

    def cells(row: Row) -> list[str]:
        executed = {run: r.costs.flops for run, r in row.results.items()}
        whole = {run: float(n) for run, n in executed.items() if n is not None}
        return [_cell(_counts(row)), _cell(whole), _cell({k: n / 2 for k, n in whole.items()})]

    heads = ["method", "counted (1e9)", "executed (1e9)", "half of executed (1e9)"]
    return block(rows, "Operations of adaptation", heads, cells)


def _counts(row: Row) -> dict[Run, float]:
    amounts = {run: results.costs.get(COUNT) for run, results in row.results.items()}
    return {k: a.value for k, a in amounts.items() if a is not None and a.value is not None}


def _cell(values: dict[Run, float]) -> str:
    if not values:
        return DASH
    return cost_number(estimate({run: n / GIGA for run, n in values.items()}, ANY))
