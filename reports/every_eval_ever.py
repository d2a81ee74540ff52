"""Scores in the format of Every Eval Ever (github.com/evaleval/every_eval_ever, schema 0.2.1).

One file a row of a comparison: a model that a method adapted on a stream and a device, with its
score over seeds. The format has numbers for scores alone, so that costs are text beside them.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import __version__, register
from bench.errors import BenchError
from bench.records.record import Record
from bench.records.summary import RecordSummary

from .aggregate import Row, clean, show_all
from .comparison import Comparison, compare, flat_settings
from .metrics import COSTS, primary
from .statistics import CONFIDENCE, over_draws
from .write import written

SCHEMA = "0.2.1"
LIBRARY = "edge-adaptation-bench"


@register("report", "every-eval-ever")
def every_eval_ever(
    records: Iterable[Record], organization: str, retrieved: float
) -> dict[str, bytes]:
    """The files of all rows with results, by path below a folder ``data``.

    ``organization``: who made the runs; ``retrieved``: when the files are made, in seconds since
    1970. Raises BenchError if no record has results.
    """
    if not clean(organization):
        raise BenchError("--organization: the format every-eval-ever asks who made the runs")
    files = {}
    for comparison in compare(records):
        for row in comparison.drawn:
            made = _evaluation(comparison, row, clean(organization), retrieved)
            content = json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            runs = [(record.identity, record.started) for record in row.runs]
            # Equal results keep their name.
            name = uuid.uuid5(uuid.NAMESPACE_URL, f"{comparison.key} {row.label} {runs}")
            folder = "/".join(_slug(part) for part in (organization, _model(comparison, row)))
            files[f"data/{LIBRARY}/{folder}/{name}.json"] = content.encode()
    if not files:
        raise BenchError("format every-eval-ever: no record has results")
    return files


@register("report", "eval-ever")
class EvalEver:
    """The same files of the records that ``bench report`` selects, instead of tables and figures.

    ``organization``: who made the runs.
    """

    def __init__(self, organization: str) -> None:
        self._organization = organization

    def choose(self, records: Iterable[RecordSummary]) -> list[RecordSummary]:
        """All of them."""
        return list(records)

    def write(self, records: Iterable[Record], folder: Path, note: str = "") -> list[Path]:
        """Write the files; their paths. The format has no place for a ``note``.

        Raises BenchError if no record has results, or if the folder cannot be written.
        """
        del note
        return written(folder, every_eval_ever(records, self._organization, time.time()))


def _model(comparison: Comparison, row: Row) -> str:
    """The adapted model's name: that of the model, and of what adapted it."""
    return clean(f"{comparison.cell.model_title} {row.label}")


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "x"


def _evaluation(
    comparison: Comparison, row: Row, organization: str, retrieved: float
) -> dict[str, Any]:
    cell = comparison.cell
    model = f"{_slug(organization)}/{_slug(_model(comparison, row))}"
    last = max(record.started for record in row.runs)
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{LIBRARY}/{model}/{retrieved:.0f}",
        "evaluation_timestamp": clean(last),
        "retrieved_timestamp": f"{retrieved:.0f}",
        "source_metadata": {
            "source_name": LIBRARY,
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "other",
        },
        "eval_library": {"name": LIBRARY, "version": __version__},
        "model_info": {
            "name": _model(comparison, row),
            "id": model,
            "additional_details": _texts(
                {
                    "model": cell.model_title,
                    "adapted_by": row.label,
                    "family": row.facts.family,
                    "paper": row.facts.paper,
                    "settings": show_all(row.facts.changed) or "the method's own",
                    "settings_origin": row.settings,
                    "target_labels": "yes" if row.supervised else "no",
                }
            ),
        },
        "evaluation_results": [_result(comparison, row)],
    }


def _result(comparison: Comparison, row: Row) -> dict[str, Any]:
    cell, metric = comparison.cell, comparison.metric
    score = row.accuracy["score"]
    assert score is not None
    measure = primary(cell.protocol)
    over = "draws of the source model" if over_draws(row.scores) else "seeds"
    details: dict[str, Any] = {"score": score.mean, "details": _texts(_costs(row))}
    if score.interval is not None:
        details["uncertainty"] = {
            "confidence_interval": {
                "lower": score.interval[0],
                "upper": score.interval[1],
                "confidence_level": CONFIDENCE,
                "method": f"Student-t over {score.n} {over}, within the range of the score",
            }
        }
    return {
        "evaluation_name": clean(cell.stream.name),
        "source_data": {
            "dataset_name": clean(cell.stream.name),
            "source_type": "other",
            "additional_details": {"sha256": cell.data},
        },
        "metric_config": {
            "evaluation_description": clean(
                f"{metric.title} on the target domains of the stream: {measure.meaning}"
            ),
            "lower_is_better": not metric.higher_is_better,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
            "additional_details": _texts({"name": metric.name, "runs": row.seeds}),
        },
        "score_details": details,
        "generation_config": {
            "additional_details": _texts({"device": cell.device_title, **flat_settings(cell)})
        },
    }


def _costs(row: Row) -> dict[str, str]:
    """Each cost with its unit and how it is known."""
    told = {}
    for name, column in COSTS.items():
        cost = row.costs[name]
        value = "unavailable"
        if cost.estimate is not None:
            known = " and ".join(cost.kinds)
            value = f"{cost.estimate.mean * column.factor:.6g} {column.unit} ({known})"
        told[column.head.replace(" ", "_")] = value
    return told


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {clean(name): clean(str(value)) for name, value in values.items()}
