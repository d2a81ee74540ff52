"""Scores as results of a benchmark on the Hugging Face Hub: ``.eval_results/*.yaml``.

The Hub shows them beside a model and on the leaderboard of the benchmark, which is a data set
there whose owner has listed the tasks (huggingface.co/docs/hub/eval-results; fields in
github.com/huggingface/hub-docs, eval_results.yaml). Here is one folder for each model with the
method that adapted it, to be copied into that model's repository.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import yaml

from bench import register
from bench.errors import BenchError
from bench.io.digest import digest
from bench.records.record import Record

from .aggregate import Row, clean, shorten
from .comparison import Comparison, compare, settings_of_cell
from .metrics import COSTS, primary
from .statistics import over_draws

LONGEST = 1000
"""Characters of a note."""


@register("report", "hf-eval-results")
def hub_results(
    records: Iterable[Record],
    organization: str,
    retrieved: float,
    benchmark: str = "",
    source: str = "",
) -> dict[str, bytes]:
    """The files of all rows that compete, by path below a folder.

    ``benchmark``: the data set on the Hub, "OWNER/NAME"; ``source``: address where the records
    can be read, and ``organization`` whose they are there. Supervised references and oracle
    settings are left out: the format has no mark that would keep them from being ranked. No file
    has a token of verification: whoever runs this reports own results. ``retrieved`` is of other
    formats. Raises BenchError if an argument does not fit or no record is left.
    """
    _require_arguments(benchmark, source)
    try:
        from huggingface_hub import eval_result_entries_to_yaml
    except ImportError as error:
        raise BenchError(
            "format hf-eval-results: this huggingface_hub knows no .eval_results; "
            "pip install -U huggingface_hub"
        ) from error
    entries: dict[str, list[Any]] = defaultdict(list)
    for comparison in compare(records):
        for row in comparison.drawn:
            if row.competes:
                entries[_model(comparison, row)].append(
                    _entry(comparison, row, clean(organization), benchmark, source)
                )
    if not entries:
        raise BenchError("format hf-eval-results: no record of a method without labels has results")
    files: dict[str, bytes] = {}
    file = f".eval_results/{_slug(benchmark)}.yaml"
    for model, found in entries.items():
        folder = _slug(model)
        while f"{folder}/{file}" in files:  # labels that differ in signs alone
            folder += "-"
        text = yaml.safe_dump(
            eval_result_entries_to_yaml(found), sort_keys=False, allow_unicode=True, width=100
        )
        files[f"{folder}/{file}"] = text.encode()
    return files


def task_id(comparison: Comparison) -> str:
    """The task within the benchmark: stream and device, and a digest of all that is fixed.

    The model is not in it, so that models stand in one ranking; a device's numbers, the stream's
    code, data and protocol are, so that only what is comparable does.
    """
    cell = comparison.cell
    settings = settings_of_cell(cell)
    fixed = [settings[name] for name in ("stream", "data", "protocol")]
    fixed += [cell.stream.code, cell.device_digest, cell.core]
    return f"{_slug(cell.stream.name)}-{_slug(cell.device_title)}-{digest(fixed)[:8]}"


def _require_arguments(benchmark: str, source: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    cure = "name the data set on the Hub whose leaderboard it is, as --benchmark my-lab/edge-bench"
    if benchmark.count("/") != 1:
        raise BenchError(f"--benchmark {benchmark!r}: format hf-eval-results: {cure}")
    try:
        validate_repo_id(benchmark)
    except HFValidationError as error:
        raise BenchError(
            f"--benchmark {benchmark!r}: is no name on the Hub: {clean(str(error))}; {cure}"
        ) from error
    if source and (urlsplit(source).scheme not in ("https", "http") or clean(source) != source):
        raise BenchError(f"--source {source!r}: give an address, as https://example.org/records")


def _entry(comparison: Comparison, row: Row, organization: str, benchmark: str, source: str) -> Any:
    from huggingface_hub import EvalResultEntry

    score = row.accuracy["score"]
    assert score is not None
    last = max(record.started for record in row.runs)
    of = {"source_url": source, "source_name": "records", "source_org": organization or None}
    return EvalResultEntry(
        dataset_id=benchmark,
        task_id=task_id(comparison),
        value=round(100 * score.mean, 3),
        date=clean(last),
        notes=_notes(comparison, row),
        **(of if source else {}),
    )


def _notes(comparison: Comparison, row: Row) -> str:
    """What a reader of the ranking must know of the number, in one line."""
    score, metric = row.accuracy["score"], comparison.metric
    assert score is not None
    over = "draws of the source model" if over_draws(row.scores) else "seeds"
    known = f", n = {score.n} {over}"
    if score.interval is not None:
        low, high = (100 * end for end in score.interval)
        known = f", 95 % interval {low:.1f} to {high:.1f} over {score.n} {over}"
    costs = [
        f"{column.head} {cost.estimate.mean * column.factor:.4g} {column.unit} "
        f"({' and '.join(cost.kinds)})"
        for name, column in COSTS.items()
        if (cost := row.costs[name]).estimate is not None
    ]
    parts = [
        f"self-reported; {metric.title} in %: {primary(comparison.cell.protocol).meaning}{known}",
        f"runs {row.seeds}",
        f"adapted by {row.label} ({row.facts.provenance} method, {row.settings} settings)",
        *costs,
        "older code than the method's newest runs" if row.older_code else "",
        f"data {comparison.cell.data[:12]}",
    ]
    return shorten(clean("; ".join(filter(None, parts))), LONGEST)


def _model(comparison: Comparison, row: Row) -> str:
    return f"{comparison.cell.model_title} adapted by {row.label}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:80] or "x"
