"""Each run in a process of its own: isolated, timed, limited in memory, killable."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import registry
from bench.costs.device_profile import load_device
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits, Stopwatch, collect
from bench.records.cell import Cell
from bench.records.record import Status
from bench.registry import register
from bench.study.job import Job

POLL_S = 0.1
START_LIMIT_S = 300.0
"""Longest that a launcher may take to import its modules and start a run."""
PRELOAD = ("torch", "torch._dynamo", "bench.execute.work", "bench.run.protocols.base")
"""Imported by every launcher: torch's optimizers import ``_dynamo`` on their first step."""


class Launcher:
    """A process of `bench.execute.fork_server`; ``modules`` are imported once for its children."""

    def __init__(self, modules: Sequence[str]) -> None:
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        # Libraries warn while they are imported; that is not for the user's terminal.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.execute.fork_server", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **dict.fromkeys(threads, "1")},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._pending = b""

    def submit(self, name: str, work: dict[str, Any], log: Path) -> None:
        """Ask for a child that does ``work`` and writes its output to ``log``."""
        line = json.dumps({"id": name, "work": work, "log": str(log.resolve())})
        with contextlib.suppress(BrokenPipeError):  # seen as the end of its answers
            self._input.write(line.encode() + b"\n")
            self._input.flush()

    def answers(self) -> list[dict[str, Any]] | None:
        """Complete answers received since the last call; None if the launcher is gone."""
        received = self.output.read()
        if received == b"" or (received is None and self._process.poll() is not None):
            return None
        *lines, self._pending = (self._pending + (received or b"")).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]

    def last_error_line(self) -> str:
        """The last line that the launcher wrote to its standard error."""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return said.splitlines()[-1][:300] if said else "it said nothing"

    def kill(self) -> None:
        """End it at once: it hangs. Its answers then end, and its runs are recorded as failed."""
        self._process.kill()

    def stop(self) -> None:
        """End the launcher and its children."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()
        self._errors.close()


@dataclass
class _Running:
    job: Job
    launcher: Launcher
    submitted: Stopwatch
    watch: Stopwatch | None = None
    pid: int | None = None
    killed: tuple[Status, str] | None = None


@register("executor", "processes")
class ProcessExecutor(Executor):
    """Local processes, one torch thread each; a run is killed at its limits.

    A run may take 80 % of the machine's memory, divided by ``workers``, unless ``limits`` say
    otherwise.
    """

    enforces = ("timeout_s", "memory_bytes")

    def __init__(self, workers: int = 1, limits: Limits | None = None) -> None:
        super().__init__(workers, limits)
        share = 0.8 * psutil.virtual_memory().total / workers
        self._memory_bytes = self.limits.memory_bytes or share
        self._launchers: dict[tuple[str, ...], Launcher] = {}
        self._running: dict[str, _Running] = {}
        self._alone: set[str] = set()  # runs that are timed on this machine

    def submit(self, job: Job) -> None:
        if any(load_device(cell.device).cost == "measured" for cell in job.cells):
            self._alone.add(job.run)
        super().submit(job)

    def wait(self) -> list[Ended]:
        while self.waiting and self._may_start(self.waiting[0]):
            self._start(self.waiting.popleft())
        with selectors.DefaultSelector() as selector:
            for launcher in self._launchers.values():
                selector.register(launcher.output, selectors.EVENT_READ)
            selector.select(timeout=POLL_S)
        ended: list[Ended] = []
        for preload, launcher in list(self._launchers.items()):
            answers = launcher.answers()
            if answers is None:
                reason = f"its launcher process died: {launcher.last_error_line()}"
                launcher.stop()
                del self._launchers[preload]
                for name in [n for n, r in self._running.items() if r.launcher is launcher]:
                    ended.append(_finish(self._running.pop(name), "failed", reason))
                continue
            for answer in answers:
                run = self._running.get(answer.get("id", ""))
                if run is None:
                    continue
                if "pid" in answer:
                    run.pid, run.watch = answer["pid"], Stopwatch()
                else:
                    del self._running[run.job.run]
                    ended.append(_finish(run, *_verdict(run, answer["code"])))
        for run in self._running.values():
            self._police(run)
            if run.pid is None and run.submitted.seconds > START_LIMIT_S:
                run.launcher.kill()
        return ended

    def cancel(self) -> list[Ended]:
        super().cancel()
        stopped = list(self._running.values())
        self._running.clear()
        for run in stopped:
            if run.pid is not None:
                _kill(run.pid)
        reason = "stopped before its end (Ctrl-C or SIGTERM)"
        return [_finish(run, "interrupted", reason) for run in stopped]

    def train_source(self, cell: Cell, log: Path, progress: Callable[[int, int], None]) -> None:
        launcher = self._launcher(_preload(cell))
        log.unlink(missing_ok=True)
        plugins = [str(p) for p in registry.plugins()]
        work = {"do": "source", "cell": cell.model_dump(mode="json"), "plugins": plugins}
        launcher.submit("source", work, log)
        position, code = 0, None
        while code is None:
            time.sleep(POLL_S)
            answers = launcher.answers()
            if answers is None:
                raise BenchError(
                    f"source model: the launcher process died: {launcher.last_error_line()}"
                )
            for answer in answers:
                code = answer.get("code", code)
            position = _report_epochs(log, position, progress)
        if code != 0:
            raise BenchError(
                f"source model: training ended with code {code}: {_last_line(log)} (log: {log})"
            )

    def close(self) -> None:
        """End all launchers and whatever still runs in them."""
        for launcher in self._launchers.values():
            launcher.stop()
        self._launchers.clear()

    # -----------------------------------------------------------------------

    def _launcher(self, preload: tuple[str, ...]) -> Launcher:
        if preload not in self._launchers:
            self._launchers[preload] = Launcher(preload)
        return self._launchers[preload]

    def _may_start(self, job: Job) -> bool:
        """Whether there is room; a job that is timed on this machine runs alone."""
        if not self._running:
            return True
        alone = self._alone.intersection((job.run, *self._running))
        return len(self._running) < self.workers and not alone

    def _start(self, job: Job) -> None:
        launcher = self._launcher(_preload(job.cells[0]))
        work = {"do": "run", "job": job.model_dump(mode="json")}
        launcher.submit(job.run, work, job.log)
        self._running[job.run] = _Running(job, launcher, Stopwatch())

    def _police(self, run: _Running) -> None:
        if run.pid is None or run.watch is None or run.killed is not None:
            return
        timeout_s = self.limits.timeout_s
        if timeout_s is not None and run.watch.seconds > timeout_s:
            run.killed = ("timeout", f"no end after {timeout_s:g} s; killed")
        elif (resident := _resident(run.pid)) > self._memory_bytes:
            run.killed = (
                "oom",
                f"resident memory of {resident / 2**30:.2f} GiB exceeds the limit of "
                f"{self._memory_bytes / 2**30:.2f} GiB; killed",
            )
        if run.killed is not None:
            _kill(run.pid)


def _preload(cell: Cell) -> tuple[str, ...]:
    """The slow imports that a cell's components declare; runs that share them share a launcher."""
    modules = list(PRELOAD)
    for kind in ("stream", "model", "method"):
        modules += registry.entry(kind, getattr(cell, kind).name).facts.get("preload", ())
    return tuple(dict.fromkeys(modules))


def _finish(run: _Running, status: Status, reason: str) -> Ended:
    watch = run.watch or Stopwatch()
    return collect(run.job, watch.started, watch.seconds, status, reason)


def _verdict(run: _Running, code: int) -> tuple[Status, str]:
    if run.killed is not None:
        return run.killed
    if code == 0:
        return "ok", ""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; perhaps the kernel's out-of-memory killer" if code == -signal.SIGKILL else ""
        return "failed", f"killed by {name}{hint}"
    return "failed", f"process ended with exit code {code}: {_last_line(run.job.log)}"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _resident(pid: int) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total


def _last_line(log: Path) -> str:
    try:
        said = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "no log was written"
    return said.split("\n")[-1].strip()[:300] if said else "its log is empty"


def _report_epochs(log: Path, position: int, progress: Callable[[int, int], None]) -> int:
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(position)
        for line in stream:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            with contextlib.suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                progress(said["epoch"], said["epochs"])
    return position
