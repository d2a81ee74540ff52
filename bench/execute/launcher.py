"""The fork server as `ProcessExecutor` sees it: asked for children, it says how they end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accelerator.gpus import Gpu
from bench.accelerator.slots import HIDDEN, environment_of
from bench.execute.process_tree import ProcessTree
from bench.execute.work import IDLE_THREADS
from bench.io.one_line import one_line
from bench.io.weights_cache import cache_folder

HUGE_PAGES = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:"
    "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=268435456"
}
"""glibc asks Linux for huge pages and keeps what is freed: a step of a small network takes 5 to
10 % less time, on a virtual machine with busy neighbours up to a quarter. It computes the same.
"""
LONGEST_ANSWER = 1 << 20
"""Bytes; what is longer is no answer."""


@dataclass(frozen=True)
class Answer:
    """What the fork server says of the child ``name``: it started as ``pid``, or ended.

    ``code``: exit code, negative: killed by that signal; ``left``: files that appeared in shared
    memory and that nobody uses any more.
    """

    name: str
    pid: int | None = None
    code: int | None = None
    left: tuple[str, ...] = ()


class Launcher:
    """A process of `bench.execute.fork_server`; ``modules`` are imported once for its children.

    ``gpu``: the GPU that they compute on, which they see alone. ``measured``: their time and memory
    are, so that they get memory as a process does that was started in the usual way.
    """

    def __init__(
        self, modules: Sequence[str], gpu: Gpu | None = None, measured: bool = False
    ) -> None:
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        # Libraries warn while they are imported; that is not for the user's terminal.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.execute.fork_server", *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                **IDLE_THREADS,
                **({} if measured else HUGE_PAGES),
                **os.environ,
                **dict.fromkeys(threads, "1"),
                **(HIDDEN if gpu is None else environment_of(gpu)),
                "BENCH_CACHE": str(cache_folder().absolute()),  # a run may change the directory
            },
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self.output = self._process.stdin, self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._tree = ProcessTree(self._process.pid)
        self._pending = b""
        self._ready = False

    def submit(self, name: str, work: dict[str, Any], log: Path) -> None:
        """Ask for a child that does ``work`` and writes its output to ``log``."""
        line = json.dumps({"id": name, "work": work, "log": str(log.resolve())})
        with contextlib.suppress(BrokenPipeError):  # seen as the end of its answers
            # It begins a line: a run may have written something else into the pipe.
            self._input.write(b"\n" + line.encode() + b"\n")
            self._input.flush()

    def answers(self) -> list[Answer] | None:
        """Answers received since the last call; None if the launcher is gone.

        A run can write into the pipe too: what is no answer is left out.
        """
        received = self.output.read()
        if received == b"" or (received is None and self._process.poll() is not None):
            return None
        *lines, self._pending = (self._pending + (received or b"")).split(b"\n")
        self._pending = self._pending[-LONGEST_ANSWER:]
        return [answer for line in lines for answer in self._read(line)]

    def _read(self, line: bytes) -> Iterator[Answer]:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        self._ready = self._ready or said.get("ready") is True
        name, pid, code, left = (said.get(key) for key in ("id", "pid", "code", "left"))
        if not isinstance(name, str):
            return
        if type(pid) is int:
            yield Answer(name, pid=pid)
        elif type(code) is int:
            files = left if isinstance(left, list) else []
            yield Answer(name, code=code, left=tuple(one_line(str(file)) for file in files))

    def last_error_line(self) -> str:
        """The last line that the launcher wrote to its standard error."""
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return one_line(said.splitlines()[-1], 300) if said else "it said nothing"

    @property
    def stopped(self) -> bool:
        """Whether it stands still, by a signal or a debugger."""
        return self._tree.stopped

    def kill(self) -> None:
        """End it at once: it hangs. Its answers then end."""
        self._process.kill()

    def close_input(self) -> None:
        """Ask it to end its children and itself; where it still imports, it is killed."""
        with contextlib.suppress(OSError):
            self._input.close()
        if not self._ready:
            self._process.kill()

    def stop(self) -> None:
        """End the launcher and its children."""
        self.close_input()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.output.close()
        self._errors.close()
