"""Programs of Python in copies of one process that has imported the heavy libraries.

Importing them takes most of a short command's time. The process is started as ``python -P``, has
loaded no component and computes nothing, so that a program differs from one of its own process in
what is imported already, and in nothing else. The same holds for the fork servers that a program
starts: each is a copy of that process too, as it was before the program ran. Run as a script this
file is that process.

A copy is a child of the process that asks for it, and `Warm` is a `subprocess.Popen`: what starts
it in between ends at once, and Linux gives its child to the nearest process that adopts.
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
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

IMPORTS = (
    "torch", "torch._dynamo", "torch.utils.flop_counter", "sklearn.datasets", "pandas",
    "bench.cli", "bench.execute.api", "bench.execute.launcher", "bench.execute.work",
    "bench.run.run_cell", "bench.run.protocols.base",
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
BENCH = "from bench.cli import main; main()"


class Warm(subprocess.Popen):
    """``python -P`` with ``-m MODULE``, ``-c CODE`` or a file, and arguments, as such a copy."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._mother = mother()
        super().__init__(*args, **options)

    def _execute_child(self, args: Sequence[str], *more: Any) -> None:
        asked = inspect.signature(super()._execute_child).bind(args, *more).arguments
        ours = [asked[name] for name in ("p2cwrite", "c2pread", "errread")]
        theirs = [asked[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        request = {
            "args": [str(each) for each in args],
            "cwd": os.path.abspath(asked["cwd"] or "."),
            "env": dict(os.environ if asked["env"] is None else asked["env"]),
            "session": asked["start_new_session"],
        }
        line = json.dumps(request).encode()
        _prctl(PR_SET_CHILD_SUBREAPER, 1)
        ends = [i if end == -1 else end for i, end in enumerate(theirs)]
        socket.send_fds(self._mother, [f"{len(line):10d}".encode()], ends)
        self._mother.sendall(line)
        answer = self._mother.recv(20)
        _prctl(PR_SET_CHILD_SUBREAPER, 0)
        if not answer:
            raise RuntimeError("the copied process has ended; see its traceback above")
        self.pid = int(answer)
        self._child_created = True
        pipes = {end for end, own in zip(theirs, ours, strict=True) if -1 not in (end, own)}
        for end in pipes | {getattr(self, "_devnull", -1)} - {-1}:
            os.close(end)


program = Warm if sys.platform == "linux" else subprocess.Popen
"""Starts a program as such a copy, where that is possible."""
warm_subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": program})
"""For the `subprocess` of a module that starts Python."""

_mothers: dict[int, socket.socket] = {}
"""By process: what leads to the one that is copied for it."""


def mother() -> socket.socket:
    """Leads to the process that is copied for this one; it is started if need be."""
    if os.getpid() not in _mothers:
        here, there = socket.socketpair()
        command = [sys.executable, "-P", __file__, str(there.fileno()), str(os.getpid())]
        process = subprocess.Popen(command, pass_fds=[there.fileno()])
        there.close()
        _mothers[os.getpid()] = here

        def close() -> None:
            here.close()
            process.wait()

        atexit.register(close)
    return _mothers[os.getpid()]


class WarmBench:
    """Runs commands of ``bench``."""

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        timeout: float,
        code: str = BENCH,
    ) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run`` of ``code`` with these arguments, its output as text."""
        process = program(
            [sys.executable, "-P", "-c", code, *arguments], cwd=cwd, env=env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)


@cache
def warm_bench() -> WarmBench:
    """The one of this session."""
    return WarmBench()


# --- in the process that is copied, and in its copies --------------------------------------------


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def serve(asked: socket.socket, parent: int) -> dict[str, Any]:
    """Make a child of ``parent`` for each request, to its end; in a child this returns it."""
    while True:
        size, ends, *_ = socket.recv_fds(asked, 10, 3)
        if not size:
            os._exit(0)
        line = b""
        while len(line) < int(size):
            line += asked.recv(int(size) - len(line))
        between = os.fork()
        if between == 0:
            if os.fork() != 0:
                os._exit(0)
            return _become(json.loads(line), ends, asked, parent)
        os.waitpid(between, 0)
        for end in ends:
            os.close(end)


def _become(
    request: dict[str, Any], ends: list[int], asked: socket.socket, parent: int
) -> dict[str, Any]:
    while os.getppid() != parent:
        time.sleep(0.001)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # no program outlives the tests
    asked.sendall(str(os.getpid()).encode())
    asked.close()
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for target, end in enumerate(ends):
        os.dup2(end, target)
        os.close(end)
    # Those of this process know where in a file they were.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.orig_argv = request["args"]
    return request


def copy_for_servers() -> dict[str, Any] | None:
    """From now on fork servers of this process are copies of it as it is now.

    None in this process, and in such a copy what it was asked to be.
    """
    here, there = socket.socketpair()
    program = os.getpid()
    if os.fork() == 0:
        here.close()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return serve(there, program)
    there.close()
    _mothers.clear()
    _mothers[program] = here
    launcher: Any = importlib.import_module("bench.execute.launcher")
    launcher.subprocess = warm_subprocess
    return None


def do(args: Sequence[str]) -> None:
    """What Python does with its arguments."""
    _, _, what, *rest = args
    if what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["bench", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = [what, *rest]
        runpy.run_path(what, run_name="__main__")


def main(asked: int, parent: int) -> None:
    """Be copied, and do in each copy what was asked of it."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in IMPORTS:
        importlib.import_module(name)
    importlib.import_module("bench.registry.discovery").scan_project()
    gc.freeze()
    request = serve(socket.socket(fileno=asked), parent)
    code: Any = 1
    try:
        do((copy_for_servers() or request)["args"])
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
