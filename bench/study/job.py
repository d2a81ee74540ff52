"""What a run needs to know, as its process receives it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pydantic

from bench.records.cell import Cell
from bench.records.store import Store

if TYPE_CHECKING:
    pass


class Job(pydantic.BaseModel, extra="forbid", frozen=True):
    """What a run needs to know; travels to its process as JSON.

    ``cells`` share their course and differ in the device. ``attempts`` counts earlier
    runs of each cell. ``run`` names this run and its log. ``meter``: of a measured device's energy
    (`bench.meters.find.find_meter`).
    """

    run: str
    suite: str
    store: str
    cells: tuple[Cell, ...]
    attempts: tuple[int, ...]
    plugins: tuple[str, ...] = ()
    tensorboard: str | None = None
    meter: str = "auto"

    @property
    def log(self) -> Path:
        """Where the run's output goes."""
        return Store(self.store).log_path(self.run)
