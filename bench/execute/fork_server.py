"""A process that has imported the heavy libraries and forks a child for each run.

Started by `Launcher` as ``python -P -m bench.execute.fork_server MODULE...``. It reads one JSON
object a line from standard input, ``{"id": ..., "work": ..., "log": ...}``, and answers on standard
output with ``{"ready": true}``, ``{"id": ..., "pid": ...}`` when a child started and ``{"id": ...,
"code": ..., "left": [...]}`` when it ended (negative: killed by that signal; the files that it left
in shared memory). It starts no thread of its own and computes nothing, so that a fork is safe;
torch is imported once for all runs, the project's files are scanned for components once, and CUDA
is not started here. When its input ends, or its parent dies, it kills its children and exits.

On Linux each child adopts what its descendants leave behind (a process that was started twice
removed, say), and this process what a child leaves behind when it ends: it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NoReturn

import psutil

from bench.io.shared_memory import SharedMemory
from bench.io.traceback_text import print_traceback
from bench.run.warm_up import warm_up

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
"""Of Linux's prctl."""
GRACE_S = 0.5
"""What a run leaves behind may end by itself, as Python's and torch's helpers do that remove shared
memory when their process is gone."""
KILLED_WITHIN_S = 5.0
"""A process that lives on longer cannot be killed: it waits for a device."""


def main() -> None:
    """Import the modules named on the command line, then serve until standard input ends."""
    prctl(SET_PDEATHSIG, signal.SIGTERM)
    prctl(SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever an import prints is not an answer
    for module in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the run that needs it will say what is wrong
            importlib.import_module(module)
    with contextlib.suppress(Exception):
        warm_up()
    gc.freeze()  # what is there now lives as long as any child: none looks through it for garbage
    if len(sys.argv) > 1 and cuda_started():
        # No child of this process could use CUDA: a new one imports nothing ahead.
        os.dup2(reply.fileno(), 1)
        os.execv(sys.executable, [sys.executable, "-P", "-m", "bench.execute.fork_server"])
    Server(reply).serve()


def cuda_started() -> bool:
    """Whether a module that was imported has started CUDA in this process."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


class Server:
    """Forks children as it is asked to, and says how they end."""

    def __init__(self, reply: IO[str]) -> None:
        self._reply = reply
        self._children: dict[int, tuple[str, SharedMemory]] = {}
        self._helpers = {child.pid for child in psutil.Process().children()}  # of the imports
        self._wake, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)

    def serve(self) -> None:
        """Until standard input ends, or SIGTERM comes."""
        self._say(ready=True)
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._wake, selectors.EVENT_READ)
        pending = b""
        while True:
            for key, _ in selector.select():
                if key.fd == self._wake:
                    if signal.SIGTERM in os.read(self._wake, 4096):
                        return self._end()
                    continue
                received = os.read(0, 1 << 16)
                if not received:
                    return self._end()
                *lines, pending = (pending + received).split(b"\n")
                for line in lines:
                    self._start(line)
            self._reap()

    def _say(self, **answer: Any) -> None:
        # Whole lines in one write: a run may write something else into the pipe, at any time.
        print(f"\n{json.dumps(answer)}\n", end="", file=self._reply)

    def _start(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            name, work, log = request["id"], request["work"], Path(request["log"])
        except (ValueError, TypeError, KeyError):
            return  # not written by the launcher
        before = SharedMemory()
        pid = os.fork()
        if pid == 0:
            self._reply.close()
            _child(work, log)
        self._children[pid] = name, before
        self._say(id=name, pid=pid)

    def _reap(self) -> None:
        """Say of each child that has ended how it did, once nothing of it is left."""
        ended = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._children:
                ended.append((pid, *self._children.pop(pid), os.waitstatus_to_exitcode(status)))
        if ended:
            self._end_orphans([pid for pid, *_ in ended])
        for _, name, before, code in ended:
            self._say(id=name, code=code, left=before.left_since())

    def _end_orphans(self, groups: Iterable[int]) -> None:
        """End what children left behind: first it may do so itself, then it is killed.

        ``groups``: of processes, which are killed where a system has no subreapers.
        """
        began = time.monotonic()
        while orphans := self._orphans():
            waited = time.monotonic() - began
            if waited > GRACE_S:
                for orphan in orphans:
                    with contextlib.suppress(psutil.Error):
                        for each in (*orphan.children(recursive=True), orphan):
                            each.kill()
            if waited > KILLED_WITHIN_S:
                self._helpers.update(orphan.pid for orphan in orphans)
            for orphan in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(orphan.pid, os.WNOHANG)
            time.sleep(0.01)
        if sys.platform != "linux":
            for group in groups:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)

    def _orphans(self) -> list[psutil.Process]:
        known = self._children.keys() | self._helpers
        return [child for child in psutil.Process().children() if child.pid not in known]

    def _end(self) -> None:
        """Kill the children and what they leave behind."""
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        groups = list(self._children)
        self._children.clear()
        self._end_orphans(groups)


def _child(work: dict[str, Any], log: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()
        prctl(SET_PDEATHSIG, signal.SIGKILL)
        prctl(SET_CHILD_SUBREAPER, 1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        from bench.execute.work import do

        do(work)
        code = 0
    except BaseException as error:
        print_traceback(error)
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def prctl(option: int, value: int) -> None:
    """On Linux: no run outlives the command, even if that is killed, and none escapes it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    main()
