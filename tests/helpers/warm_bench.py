"""``bench`` commands in children of one process that has imported the heavy libraries.

Importing them takes most of a short command's time. The process is started as ``python -P``, has
loaded no component and computes nothing, so that a command differs from one of its own process in
what is imported already, and in nothing else. The same holds for the fork servers that a command
starts: each is a copy of that process too, as it was before the command ran. Run as a script this
file is that process.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import inspect
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

IMPORTS = (
    "torch", "torch._dynamo", "torch.utils.flop_counter", "sklearn.datasets", "pandas",
    "bench.cli", "bench.execute.api", "bench.run.run_cell", "bench.run.protocols.base",
    "bench.execute.launcher", "bench.execute.work",
)  # fmt: skip


PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
BENCH = "from bench.cli import main; main()"


class WarmBench:
    """Asks the process for commands, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        atexit.register(self.close)

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        timeout: float,
        code: str = BENCH,
    ) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run`` of ``code`` with these arguments, its output as text."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            request = {
                "arguments": list(arguments), "cwd": str(cwd), "env": dict(env), "code": code,
                "out": str(out), "err": str(err),
            }  # fmt: skip
            print(json.dumps(request), file=self._process.stdin, flush=True)
            pid = int(self._process.stdout.readline())
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                os.killpg(pid, signal.SIGKILL)
                self._process.stdout.readline()
                raise subprocess.TimeoutExpired(list(arguments), timeout, out.read_text())
            code = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(
                list(arguments), code, out.read_text(), err.read_text()
            )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@cache
def warm_bench() -> WarmBench:
    """The one of this session."""
    return WarmBench()


class ForkedServer(subprocess.Popen):
    """``python -P -m bench.execute.fork_server MODULE...`` as a copy of another process.

    It is a child of this process nevertheless: what had started it in between ends at once, and
    Linux gives its child to the nearest process that adopts.
    """

    mother: socket.socket
    """Leads to the process that is copied."""

    def _execute_child(self, args: Sequence[str], *more: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(args, *more).arguments
        ends = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {"args": list(args), "cwd": os.getcwd(), "env": dict(asked["env"])}
        assert asked["start_new_session"]
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        length = len(line := json.dumps(request).encode())
        socket.send_fds(self.mother, [f"{length:10d}".encode()], ends)
        self.mother.sendall(line)
        self.pid = int(self.mother.recv(20))
        prctl(PR_SET_CHILD_SUBREAPER, 0)
        self._child_created = True
        for end in ends[:2]:  # of pipes; the third is the launcher's file
            os.close(end)


def prctl(option: int, value: int) -> None:
    """Linux's call of this name."""
    ctypes.CDLL(None).prctl(option, value)


def copy_for_servers() -> None:
    """From now on fork servers of this process are copies of it as it is now."""
    here, there = socket.socketpair()
    command = os.getpid()
    if os.fork() == 0:
        here.close()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        mother_of_servers(there, command)
        os._exit(0)
    there.close()
    ForkedServer.mother = here
    launcher = importlib.import_module("bench.execute.launcher")
    launcher.subprocess = SimpleNamespace(  # type: ignore[attr-defined]
        Popen=ForkedServer, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )


def mother_of_servers(asked: socket.socket, command: int) -> None:
    """Fork a child of ``command`` for each request."""
    while True:
        size, ends, *_ = socket.recv_fds(asked, 10, 3)
        if not size:
            return
        line = b""
        while len(line) < int(size):
            line += asked.recv(int(size) - len(line))
        between = os.fork()
        if between == 0:
            if os.fork() == 0:
                be_server(json.loads(line), ends, asked, command)
            os._exit(0)
        os.waitpid(between, 0)
        for end in ends:
            os.close(end)


def be_server(request: dict[str, Any], ends: list[int], asked: socket.socket, command: int) -> None:
    """Become the fork server that was asked for."""
    code = 1
    try:
        while os.getppid() != command:
            time.sleep(0.001)
        asked.sendall(str(os.getpid()).encode())
        asked.close()
        os.setsid()
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        for target, end in enumerate(ends):
            os.dup2(end, target)
            os.close(end)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.orig_argv = request["args"]
        module = "bench.execute.fork_server"
        sys.argv = ["", *request["args"][request["args"].index(module) + 1 :]]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    finally:
        sys.stdout.flush()
        os._exit(code)


def serve() -> str:
    """Start commands until standard input ends; in a child it returns, with the code to run."""
    for name in IMPORTS:
        importlib.import_module(name)
    importlib.import_module("bench.registry.discovery").scan_project()
    gc.freeze()
    reply = os.fdopen(os.dup(1), "w")
    while True:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            reply.close()
            os.setsid()
            if sys.platform == "linux":  # no command outlives the tests
                prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            writes = os.O_WRONLY | os.O_CREAT
            for target, path in enumerate((os.devnull, request["out"], request["err"])):
                opened = os.open(path, writes if target else os.O_RDONLY, 0o600)
                os.dup2(opened, target)
                os.close(opened)
            if sys.platform == "linux":
                copy_for_servers()
            sys.argv = ["bench", *request["arguments"]]
            code: str = request["code"]
            return code
        print(pid, file=reply, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=reply, flush=True)


if __name__ == "__main__":
    exec(serve(), {"__name__": "__main__"})
