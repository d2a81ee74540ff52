"""A process that has imported the heavy libraries and forks a child for each run.

Started by `ProcessExecutor` as ``python -P -m bench.execute.fork_server MODULE...``. It reads one
JSON object a line from standard input, ``{"id": ..., "work": ..., "log": ...}``, and answers on
standard output with ``{"ready": true}``, ``{"id": ..., "pid": ...}`` when a child started and
``{"id": ..., "code": ...}`` when it ended (negative: killed by that signal). It starts no thread of
its own and computes nothing, so that a fork is safe; torch is imported once for all runs. When its
input ends, or its parent dies, it kills its children and exits.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    """Import the modules named on the command line, then serve until standard input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever an import prints is not an answer
    for module in sys.argv[1:]:
        with contextlib.suppress(Exception):  # the run that needs it will say what is wrong
            importlib.import_module(module)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, str] = {}
    print(json.dumps({"ready": True}), file=reply)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in selector.select():
            if key.fd == wake:
                os.read(wake, 4096)
                continue
            received = os.read(0, 1 << 16)
            if not received:
                _kill(children)
                return
            pending += received
            *lines, pending = pending.split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    reply.close()
                    _child(request)
                children[pid] = request["id"]
                print(json.dumps({"id": request["id"], "pid": pid}), file=reply)
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            name = children.pop(pid, None)
            if name is None:
                continue  # a process that a library started while it was imported
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what the run started must not outlive it
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps({"id": name, "code": code}), file=reply)


def _child(request: dict[str, Any]) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = Path(request["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        from bench.execute.work import do

        do(request["work"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _kill(children: dict[int, str]) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)


def _die_with_parent() -> None:
    """On Linux, be killed when the parent dies, even by SIGKILL: no run outlives the command."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


if __name__ == "__main__":
    main()
