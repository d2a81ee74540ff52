"""Runs jobs one after another in this process: for a debugger, not for a benchmark."""

from __future__ import annotations

import os

from bench.accelerator.choice import Choice
from bench.accelerator.slots import environment_of
from bench.execute.base import Ended, Executor, Limits, Stopwatch, collect
from bench.registry import register
from bench.run.run_cell import run_job
from bench.study.job import Job


@register("executor", "inline")
class InlineExecutor(Executor):
    """In this process, one after another: no isolation, no limits, no log file.

    Exceptions still become records.
    """

    in_process = True

    _running: tuple[Job, Stopwatch] | None = None

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(1, limits)  # whatever ``workers``: it has one process

    def compute_on(self, choice: Choice) -> None:
        """Runs see the first GPU alone, if this process has not used another yet."""
        super().compute_on(choice)
        os.environ.update(environment_of(choice.gpus[0]))

    def wait(self) -> list[Ended]:
        job, watch = self._running = self.waiting.popleft(), Stopwatch()
        run_job(job)
        self._running = None
        return [collect(job, watch.started, watch.seconds, "ok", "")]

    def cancel(self) -> list[Ended]:
        super().cancel()
        if self._running is None:
            return []
        (job, watch), self._running = self._running, None
        return [collect(job, watch.started, watch.seconds, "interrupted", "stopped by Ctrl-C")]
