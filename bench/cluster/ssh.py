"""Runs jobs on a board that is reached by OpenSSH, one at a time; records come back."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import selectors
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.cluster.boards import Board, find_board
from bench.cluster.connection import LOST, Connection, ConnectionLost
from bench.cluster.prepare_board import Ready, ready
from bench.costs.device_profile import load_device
from bench.errors import BenchError
from bench.execute.base import Ended, Executor, Limits, Stopwatch, collect
from bench.execute.preparation import Preparation, PreparationListener
from bench.execute.work import IDLE_THREADS
from bench.io.atomic_write import write_atomically
from bench.io.run_output import last_line
from bench.records.record import Status
from bench.records.store import Store
from bench.registry import register
from bench.run.source_model import source_path
from bench.study.build import build
from bench.study.job import Job

POLL_S = 0.2
AGAIN_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0)
"""Seconds before each further attempt after the connection was lost; then the run is given up."""
BUSY_S = 2.0
STOP_S = 15.0
"""Longest to wait for a run that is to stop."""


@dataclass
class _Running:
    """The job on the board: its folder there, and ssh, which is connected to its agent."""

    job: Job
    folder: str
    process: subprocess.Popen[bytes]
    errors: Path
    watch: Stopwatch = field(default_factory=Stopwatch)
    received: bytes = b""
    started: bool = False
    lost: int = 0
    """Attempts since it was last connected."""


@register("executor", "ssh")
class SshExecutor(Executor):
    """On a board (``bench run --on NAME``), one run at a time, whichever command or host starts it.

    Source models are trained here and taken along; variants and offline stages are made on the
    board. A run goes on for three minutes without a connection, and ends then.
    """

    enforces = ("timeout_s",)

    def __init__(
        self, workers: int = 1, limits: Limits | None = None, board: Board | None = None
    ) -> None:
        super().__init__(1, limits)  # whatever ``workers``: what runs alone is measured alone
        named = os.environ.get("BENCH_BOARD", "")
        if board is None and not named:
            raise BenchError("executor 'ssh': on which board? Give 'bench run --on NAME' instead")
        self.board = board or find_board(named)
        self._connection = Connection(self.board)
        self._ready: Ready | None = None
        self._running: _Running | None = None
        self._files = tempfile.TemporaryDirectory(prefix="bench-board-")
        self._sent: set[str] = set()
        self._ran = False

    @classmethod
    def on(cls, name: str, limits: Limits | None = None) -> SshExecutor:
        """The executor of the board that was added under this name."""
        return cls(1, limits, find_board(name))

    def prepare(
        self, preparations: Sequence[Preparation], logs: Path, listener: PreparationListener
    ) -> None:
        self._look()  # before anything is trained here
        sources = [each for each in preparations if each.kind == "source"]
        super().prepare(sources, logs, listener)

    def submit(self, job: Job) -> None:
        for cell in job.cells:
            if Path(cell.device.partition("@")[0]).suffix in (".yaml", ".yml"):
                raise BenchError(
                    f"board {self.board.name}: {cell.device} is a file of this machine: run what "
                    "is modelled here, and give --device host for the board"
                )
            if cell.accelerator != "cpu" and load_device(cell.device).cost == "modelled":
                raise BenchError(f"board {self.board.name}: --accelerator cuda needs --device host")
        if job.tensorboard is not None:
            raise BenchError(f"board {self.board.name}: --tensorboard writes here; leave it out")
        super().submit(job)

    def wait(self) -> list[Ended]:
        if self._running is None:
            if not self.waiting:
                return []
            self._start(self.waiting.popleft())
        assert self._running is not None
        running = self._running
        limit = self.limits.timeout_s
        if limit is not None and running.watch.seconds > limit:
            self._stop(running)
            return [self._ended(running, "timeout", f"no end after {limit:g} s; killed")]
        said = self._said(running)
        if said is None:
            return self._reconnect(running)
        for line in said:
            if "busy" in line:
                self._close(running)
                if not self._ran:
                    self._running = None
                    raise BenchError(
                        f"board {self.board.name}: in use by {line['busy']}: wait until that has "
                        "ended"
                    )
                time.sleep(BUSY_S)
                self._connect(running)
            elif "started" in line:
                running.started = self._ran = True
            elif "code" in line:
                return [self._finish(running, int(line["code"]))]
        return []

    def cancel(self) -> list[Ended]:
        super().cancel()
        running = self._running
        if running is None:
            return []
        self._stop(running)
        return [self._ended(running, "interrupted", "stopped before its end (Ctrl-C or SIGTERM)")]

    def close(self) -> None:
        """Stop what runs, and forget the files here; code and weights stay on the board."""
        if self._running is not None:
            self._stop(self._running)
            self._running = None
        self._files.cleanup()

    # -----------------------------------------------------------------------

    def _look(self) -> Ready:
        if self._ready is None:
            self._ready = ready(self._connection)
        return self._ready

    def _start(self, job: Job) -> None:
        there = self._look()
        folder = f"{there.folder}/jobs/{job.run}"
        plugins = [Path(plugin) for plugin in job.plugins]
        names = [f"plugins/{i}/{path.name}" for i, path in enumerate(plugins)]
        moved = {"store": f"{folder}/store", "plugins": tuple(f"{folder}/{n}" for n in names)}
        text = job.model_copy(update=moved).model_dump_json().encode()
        self._send_weights(job, there)
        self._connection.put(folder, [*zip(names, plugins, strict=True), ("job.json", text)])
        errors = Path(self._files.name) / f"{job.run}.ssh"
        self._running = _Running(job, folder, self._agent(folder, errors), errors)

    def _send_weights(self, job: Job, there: Ready) -> None:
        """Take source models along that are cached here, once."""
        for cell in job.cells:
            path = source_path(cell, build("stream", cell.stream, cell.seed))
            if path.name not in self._sent and path.is_file():
                kind, folder = path.parent.name, f"{there.folder}/cache"
                test = ["sh", "-c", 'test -e "$1" && echo yes || echo no', "sh"]
                have = self._connection.run([*test, f"{folder}/{kind}/{path.name}"])
                if have.strip() != b"yes":
                    incoming = f"{folder}/{kind}"
                    self._connection.put(incoming, [(f".{path.name}.{job.run}{job.run}", path)])
                    move = ["mv", f"{incoming}/.{path.name}.{job.run}{job.run}"]
                    self._connection.run([*move, f"{incoming}/{path.name}"])
                self._sent.add(path.name)

    def _agent(self, folder: str, errors: Path) -> subprocess.Popen[bytes]:
        there = self._look()
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        variables = {
            **IDLE_THREADS,
            **dict.fromkeys(threads, "1"),
            "PYTHONPATH": there.code,
            "BENCH_CACHE": f"{there.folder}/cache",
        }
        command = ["env", *(f"{name}={value}" for name, value in variables.items())]
        command += [self.board.python, "-P", f"{there.code}/bench/cluster/agent.py"]
        command += [f"{there.folder}/lock", folder, _who()]
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                self._connection.command(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                start_new_session=True,  # Ctrl-C is for this process, which tells the agent
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def _connect(self, running: _Running) -> None:
        running.process, running.received = self._agent(running.folder, running.errors), b""

    def _said(self, running: _Running) -> list[dict] | None:
        """What the agent has said within a moment; None if it is not heard any more."""
        output = running.process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            selector.select(timeout=POLL_S)
        received = output.read()
        if received == b"":
            return None
        *lines, running.received = (running.received + (received or b"")).split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        if found:
            running.lost = 0
        return [line for line in found if isinstance(line, dict)]

    def _reconnect(self, running: _Running) -> list[Ended]:
        """Connect again after a while; the job is given up after the last attempt."""
        code = self._close(running)
        said = running.errors.read_text(errors="replace")
        why = str(self._connection.failure(code, said))
        if code != LOST and not running.started:
            self._running = None
            raise BenchError(why)
        if running.lost == len(AGAIN_S):
            tried = f"the connection was lost, and {running.lost} attempts failed: {why}"
            return [self._ended(running, "interrupted", tried)]
        time.sleep(AGAIN_S[running.lost])
        running.lost += 1
        self._connect(running)
        return []

    def _finish(self, running: _Running, code: int) -> Ended:
        """Fetch what the run has left, into the store here."""
        self._close(running)
        store = Store(running.job.store)
        into = Path(self._files.name) / running.job.run
        for again in (*AGAIN_S, None):
            try:
                self._connection.fetch(running.folder, into)
                break
            except ConnectionLost as error:
                if again is None:
                    why = f"it ended, and its records cannot be fetched: {error}"
                    return self._ended(running, "interrupted", why)
                time.sleep(again)
        log = into / "log"
        if log.is_file():
            write_atomically(running.job.log, log.read_bytes())
        for record in Store(into / "store"):
            if record.run == running.job.run:
                about = record.environment | {"board": self.board.name}
                store.write(record.model_copy(update={"environment": about}))
        with contextlib.suppress(BenchError):
            self._connection.run(["rm", "-rf", running.folder])
        if code == 0:
            return self._ended(running, "ok", "")
        how = f"killed by signal {-code}" if code < 0 else f"process ended with exit code {code}"
        why = f"{how} on board {self.board.name}: {last_line(running.job.log)}"
        return self._ended(running, "failed", why)

    def _ended(self, running: _Running, status: Status, reason: str) -> Ended:
        self._running = None
        watch = running.watch
        return collect(running.job, watch.started, watch.seconds, status, reason)

    def _stop(self, running: _Running) -> None:
        """Kill the run on the board, as far as that is connected."""
        with contextlib.suppress(OSError):
            assert running.process.stdin is not None
            running.process.stdin.write(b"stop\n")
            running.process.stdin.flush()
        end = time.monotonic() + STOP_S
        while time.monotonic() < end:
            said = self._said(running)
            if said is None or any("code" in line for line in said):
                break
        self._close(running)
        with contextlib.suppress(BenchError):
            self._connection.run(["rm", "-rf", running.folder], timeout_s=STOP_S)

    @staticmethod
    def _close(running: _Running) -> int:
        """End ssh; its exit code."""
        process = running.process
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            code = process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"
