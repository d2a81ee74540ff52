"""Live scalars of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.study.job import Job

if TYPE_CHECKING:
    from bench.run.window import Logger


def _tensorboard(job: Job) -> Logger | None:
    if job.tensorboard is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    cell = job.cells[0]
    folder = (
        Path(job.tensorboard)
        / f"{job.suite}-{cell.method.name}-seed{cell.seed}-{cell.training_key[:8]}"
    )
    writer = SummaryWriter(str(folder), flush_secs=2)

    class Scalars:
        def __call__(self, name: str, value: float, step: int) -> None:
            writer.add_scalar(name, value, step)

        def close(self) -> None:
            writer.close()

    return Scalars()  # type: ignore[return-value]
