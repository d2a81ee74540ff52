"""What a child of the launcher can be asked to do."""

from __future__ import annotations

import json
from typing import Any

from bench import registry as registry
from bench.contracts.build import build
from bench.records.cell import Cell
from bench.run.run_cell import run_job
from bench.run.source_model import source_model
from bench.study.job import Job


def do(work: dict[str, Any]) -> None:
    """Run one job, or train one source model."""
    if work["do"] == "run":
        run_job(Job.model_validate(work["job"]))
    elif work["do"] == "source":
        _train_source(Cell.model_validate(work["cell"]), work["plugins"])
    else:
        raise ValueError(f"unknown work {work['do']!r}")


def _train_source(cell: Cell, plugins: list[str]) -> None:
    for plugin in plugins:
        registry.add_plugin(plugin)
    source_model(
        cell,
        build("stream", cell.stream, 0),
        lambda done, total: print(json.dumps({"epoch": done, "epochs": total}), flush=True),
    )
