"""An executor in one file: a process for each job, one after another."""

from __future__ import annotations

import subprocess

from bench import Ended, Executor, Stopwatch, collect, job_command, register


@register("executor", "toy")
class ToyExecutor(Executor):
    """Starts the command of a job and waits for it."""

    enforces = ("timeout_s",)

    def wait(self) -> list[Ended]:
        job, watch = self.waiting.popleft(), Stopwatch()
        with job.log.open("wb") as log:
            try:
                done = subprocess.run(
                    job_command(job), stdout=log, stderr=log, timeout=self.limits.timeout_s
                )
            except subprocess.TimeoutExpired as error:
                return [collect(job, watch.started, watch.seconds, "timeout", str(error))]
        status = "failed" if done.returncode else "ok"
        reason = f"exit code {done.returncode}"
        return [collect(job, watch.started, watch.seconds, status, reason)]
