"""Runs jobs one after another in this process: for a debugger, not for a benchmark."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from bench.execute.base import Ended, Executor, Stopwatch, collect
from bench.run.run_cell import run_job
from bench.study.job import Job


class InlineExecutor(Executor):
    """No isolation, no timeout, no memory limit, no log file; exceptions still become records."""

    def __init__(self, on_end: Callable[[Ended], Iterable[Job]]) -> None:
        self.on_end = on_end

    def run(self, jobs: Iterable[Job]) -> None:
        queue = deque(jobs)
        while queue:
            job = queue.popleft()
            watch = Stopwatch()
            try:
                run_job(job)
            except KeyboardInterrupt:
                self.on_end(
                    collect(job, watch.started, watch.seconds, "interrupted", "stopped by Ctrl-C")
                )
                raise
            ended = collect(job, watch.started, watch.seconds, "ok", "")
            queue.extend(self.on_end(ended))
