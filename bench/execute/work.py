"""What a process does for an executor: run one job, or train one source model.

``python -m bench.execute.work job.json`` runs the job in a file and writes its records to the
job's store. Exit code: 0 the run ended (in whatever its records say; a cell without one was
deferred), 2 the file is no job or the store cannot be written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic

from bench import registry
from bench.contracts.build import build
from bench.errors import BenchError
from bench.records.cell import Cell
from bench.run.run_cell import run_job
from bench.run.source_model import source_model
from bench.study.job import Job


def do(work: dict[str, Any]) -> None:
    """Run one job, or train one source model, as the fork server is asked to."""
    if work["do"] == "run":
        run_job(Job.model_validate(work["job"]))
    elif work["do"] == "source":
        for plugin in work["plugins"]:
            registry.add_plugin(plugin)
        train_source(
            Cell.model_validate(work["cell"]),
            lambda done, total: print(json.dumps({"epoch": done, "epochs": total}), flush=True),
        )
    else:
        raise ValueError(f"unknown work {work['do']!r}")


def train_source(cell: Cell, progress: Callable[[int, int], None]) -> None:
    """Train a cell's source model unless it is cached; ``progress`` as in `source_model`."""
    source_model(cell, build("stream", cell.stream, 0), progress)


def read_job(path: Path) -> Job:
    """The job in a file; BenchError if there is none."""
    try:
        return Job.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BenchError(f"job {path}: cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise BenchError(f"job {path}: is no job: {error.errors()[0]['msg']}") from error


def main(arguments: list[str]) -> None:
    """Run the job in the file that is named."""
    if len(arguments) != 1:
        raise BenchError("usage: python -m bench.execute.work job.json")
    run_job(read_job(Path(arguments[0])))


if __name__ == "__main__":
    if not sys.flags.safe_path:  # as in bench/__main__.py
        os.execv(sys.executable, [sys.executable, "-P", "-m", "bench.execute.work", *sys.argv[1:]])
    try:
        main(sys.argv[1:])
    except BenchError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        sys.exit(2)
