"""Live scalars of a run for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from bench.study.job import Job


class ScalarLog:
    """Receives (name, value, step) and writes it to a folder of TensorBoard events."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), flush_secs=2)

    def __call__(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def scalar_log(job: Job) -> ScalarLog | None:
    """The log that a job asks for, named after its first cell, or None."""
    if job.tensorboard is None:
        return None
    cell = job.cells[0]
    name = f"{job.suite}-{cell.method.name}-seed{cell.seed}-{cell.training_key[:8]}"
    return ScalarLog(Path(job.tensorboard) / name)
