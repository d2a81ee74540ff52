"""What a child of the launcher can be asked to do."""

from __future__ import annotations

import json
from typing import Any

from bench import registry
from bench.cell import Cell
from bench.run import Job, run_job
from bench.source import source_model


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
    scenario_class = registry.load("scenario", cell.scenario.name)
    scenario = scenario_class(scenario_class.Config.model_validate(cell.scenario.config), 0)
    source_model(
        cell,
        scenario,
        lambda done, total: print(json.dumps({"epoch": done, "epochs": total}), flush=True),
    )
