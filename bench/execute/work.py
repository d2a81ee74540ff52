"""What a process does for an executor: run one job, or make what runs share.

``python -m bench.execute.work job.json`` runs the job in a file and writes its records to the
job's store. Exit code: 0 the run ended (in whatever its records say; a cell without one was
deferred), 2 the file is no job or the store cannot be written.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from bench import registry
from bench.errors import BenchError, Unsupported
from bench.io.progress import listening
from bench.io.quick_exit import run_and_exit
from bench.records.cell import Cell
from bench.run.deployed import make_ahead
from bench.run.run_cell import run_job
from bench.run.source_model import source_model
from bench.study.build import build
from bench.study.job import Job
from bench.study.suite import explain

IDLE_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Threads of OpenMP (also MKL's) that have nothing to do sleep, and take no core from other runs.

What they compute is the same.
"""


def do(work: dict[str, Any]) -> None:
    """Run one job, or make what runs share, as the fork server is asked to."""
    if work["do"] == "run":
        run_job(Job.model_validate(work["job"]))
        return
    for plugin in work["plugins"]:
        registry.add_plugin(plugin)
    try:
        with listening(_Printed()):
            prepare(work["do"], Cell.model_validate(work["cell"]))
    except Unsupported as reason:
        if work["do"] == "source":  # without which nothing can run
            raise
        print(json.dumps({"unsupported": str(reason)}), flush=True)


def prepare(kind: str, cell: Cell) -> None:
    """Make and cache what runs share: `bench.execute.preparation.Preparation` says what."""
    if kind == "source":
        source_model(cell, build("stream", cell.stream, cell.seed))
    elif kind == "ahead":
        make_ahead(cell)
    else:
        raise ValueError(f"unknown work {kind!r}")


class _Printed:
    """Prints how far work has come, as one JSON object a line, not more often than is of use."""

    EVERY_S = 0.2

    def __init__(self) -> None:
        self._last = -math.inf

    def __call__(self, done: int, total: int) -> None:
        if done in (0, total) or time.monotonic() - self._last > self.EVERY_S:
            self._last = time.monotonic()
            print(json.dumps({"done": done, "total": total}), flush=True)


Order = TypeVar("Order", bound=pydantic.BaseModel)


def read_order(path: Path, kind: type[Order]) -> Order:
    """The job (or batch of jobs) in a file; BenchError if there is none."""
    name = kind.__name__.lower()
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{name} {path}: cannot be read: {error.strerror}") from error
    except pydantic.ValidationError as error:
        raise BenchError(f"{name} {path}: is no {name}: {explain(error, kind)}") from error


def main(arguments: list[str]) -> None:
    """Run the job in the file that is named."""
    if len(arguments) != 1:
        raise BenchError("usage: python -m bench.execute.work job.json")
    run_job(read_order(Path(arguments[0]), Job))


if __name__ == "__main__":
    for name, value in IDLE_THREADS.items():
        os.environ.setdefault(name, value)  # read when torch is imported
    if not sys.flags.safe_path:  # as in bench/__main__.py
        os.execv(sys.executable, [sys.executable, "-P", "-m", "bench.execute.work", *sys.argv[1:]])
    run_and_exit(lambda: main(sys.argv[1:]))
