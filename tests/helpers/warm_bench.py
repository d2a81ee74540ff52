"""``bench`` commands in children of one process that has imported the heavy libraries.

Importing them takes most of a short command's time. The process is started as ``python -P``, has
loaded no component and computes nothing, so that a command differs from one of its own process in
what is imported already, and in nothing else. Run as a script this file is that process.
"""

from __future__ import annotations

import atexit
import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

IMPORTS = (
    "torch", "torch._dynamo", "torch.utils.flop_counter", "sklearn.datasets", "pandas",
    "bench.cli", "bench.execute.api", "bench.run.run_cell", "bench.run.protocols.base",
)  # fmt: skip


PR_SET_PDEATHSIG = 1
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


def serve() -> str:
    """Start commands until standard input ends; in a child it returns, with the code to run."""
    for name in IMPORTS:
        importlib.import_module(name)
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
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            os.chdir(request["cwd"])
            os.environ.clear()
            os.environ.update(request["env"])
            writes = os.O_WRONLY | os.O_CREAT
            for target, path in enumerate((os.devnull, request["out"], request["err"])):
                opened = os.open(path, writes if target else os.O_RDONLY, 0o600)
                os.dup2(opened, target)
                os.close(opened)
            sys.argv = ["bench", *request["arguments"]]
            code: str = request["code"]
            return code
        print(pid, file=reply, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), file=reply, flush=True)


if __name__ == "__main__":
    exec(serve(), {"__name__": "__main__"})
