"""What a run needs to know, as its process receives it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import pydantic

from bench import registry
from bench.records.cell import Cell
from bench.records.store import Store


class Job(pydantic.BaseModel, extra="forbid", frozen=True):
    """One run, which travels to its process as JSON.

    ``cells`` share their training key and differ in the device. ``attempts`` counts earlier
    runs of each cell. ``run`` names this run and its log. ``store`` and ``plugins`` are absolute
    paths. ``meter``: of a measured device's energy (`bench.meters.find.find_meter`).
    ``isolate_labels``: whether labels of test splits stay out of the run's process.
    ``expected_source``: the band in which the source model's metric must lie.
    """

    run: str
    suite: str
    store: str
    cells: tuple[Cell, ...]
    attempts: tuple[int, ...]
    plugins: tuple[str, ...] = ()
    tensorboard: str | None = None
    meter: str = "auto"
    isolate_labels: bool = False
    expected_source: tuple[float, float] | None = None

    @property
    def log(self) -> Path:
        """Where the run's output goes."""
        return Store(self.store).log_path(self.run)

    def again(self, cells: Sequence[Cell]) -> Job:
        """A new run of some of this job's cells, with the same attempts."""
        attempts = tuple(self.attempts[self.cells.index(cell)] for cell in cells)
        changes = {"run": _new_run(), "cells": tuple(cells), "attempts": attempts}
        return self.model_copy(update=changes)


def make_job(
    cells: Sequence[Cell],
    suite: str,
    store: Store,
    tensorboard: Path | None = None,
    meter: str = "auto",
    isolate_labels: bool = False,
    expected_source: tuple[float, float] | None = None,
) -> Job:
    """A run of ``cells`` with the plugins of this process; earlier attempts are in the store."""
    earlier = [store.get(cell.identity) for cell in cells]
    return Job(
        run=_new_run(),
        suite=suite,
        store=str(store.root.resolve()),
        cells=tuple(cells),
        attempts=tuple(0 if record is None else record.attempt for record in earlier),
        plugins=tuple(str(path) for path in registry.plugins()),
        tensorboard=None if tensorboard is None else str(tensorboard.resolve()),
        meter=meter,
        isolate_labels=isolate_labels,
        expected_source=expected_source,
    )


def _new_run() -> str:
    return uuid.uuid4().hex[:16]
