"""Scores and costs for the model cards of adapted models, as the Hugging Face Hub reads them.

One file a row of a comparison: the metadata (``model-index``) for the head of a model's README. The
Hub's newer ``.eval_results``, of benchmarks that are data sets on the Hub, are `hub_results`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from bench import register
from bench.errors import BenchError
from bench.records.record import Record

from .aggregate import Row, clean
from .comparison import Comparison, compare
from .metrics import COSTS, primary

TASK = "other"
"""The Hub asks for the kind of task; records do not hold it in the Hub's words."""


@register("report", "model-card")
def model_card(records: Iterable[Record], organization: str, retrieved: float) -> dict[str, bytes]:
    """The files of all rows with results, by path below a folder.

    ``organization`` and ``retrieved`` are of other formats. Raises BenchError if no record has
    results.
    """
    files: dict[str, bytes] = {}
    for comparison in compare(records):
        for row in comparison.drawn:
            name = f"{comparison.slug[:120]}/{_slug(row)}.yaml"
            while name in files:  # labels that differ in signs alone
                name = f"{name.removesuffix('.yaml')}-.yaml"
            files[name] = f"---\n{_card(comparison, row)}\n---\n".encode()
    if not files:
        raise BenchError("format model-card: no record has results")
    return files


def _slug(row: Row) -> str:
    label = f"{row.label}{'-supervised' * row.supervised}"
    return re.sub(r"[^A-Za-z0-9]+", "-", label).strip("-")[:80] or "x"


def _card(comparison: Comparison, row: Row) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    cell, metric = comparison.cell, comparison.metric
    score = row.accuracy["score"]
    assert score is not None
    shared: dict[str, Any] = {
        "task_type": TASK,
        "task_name": clean(f"adaptation on {cell.device_title}"),
        "dataset_type": _id(cell.stream.name),
        "dataset_name": clean(comparison.place),
        "dataset_revision": cell.data,
        "dataset_args": {"protocol": clean(str(cell.protocol.get("name", "periodic")))},
    }
    args: dict[str, Any] = {"runs": row.seeds, "target_labels": row.supervised}
    if score.interval is not None:
        args["interval_95"] = [round(100 * end, 3) for end in score.interval]
        args["repeats"] = score.n
    named = f"{metric.title} (%): {primary(cell.protocol).meaning}"
    results = [
        EvalResult(
            **shared, metric_type=_id(metric.name), metric_name=clean(named),
            metric_value=round(100 * score.mean, 3), metric_args=args,
        )
    ]  # fmt: skip
    for name, column in COSTS.items():
        cost = row.costs[name]
        if cost.estimate is not None:
            told = f"{column.head} ({column.unit}, {' and '.join(cost.kinds)})"
            value = float(f"{cost.estimate.mean * column.factor:.6g}")
            results.append(
                EvalResult(**shared, metric_type=name, metric_name=told, metric_value=value)
            )
    model = clean(f"{cell.model_title} adapted by {row.label}")
    card = ModelCardData(
        model_name=model,
        eval_results=results,
        tags=["test-time-adaptation", _id(cell.device_title)],
    )
    return str(card.to_yaml())


def _id(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")[:80] or "x"
