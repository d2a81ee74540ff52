"""Call a function in a fresh Python process: one JSON value goes in, JSON values come out.

The function is named as ``module:function``, so that the caller need not import what it imports.
The process is ``python -P -m bench.io.subprocess_call``: it reads its argument from standard
input and writes one line for each answer; what libraries print goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from bench.errors import BenchError


class ProcessEnded(BenchError):
    """The process ended early: exit code (negative: signal), standard error and its last line."""

    def __init__(self, what: str, code: int, stderr: str) -> None:
        self.code, self.stderr = code, stderr
        self.last_line = (stderr.strip().splitlines() or [""])[-1][:300]
        reason = self.last_line or f"exit code {code}, and it said nothing"
        super().__init__(_prefixed(what, reason))


def call(
    function: str,
    argument: Any,
    *,
    what: str = "",
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    cure: str = "",
) -> Any:
    """What ``function(argument)`` returns, by way of JSON.

    ``what`` begins every error's message; ``environment`` adds variables; the process is killed
    after ``timeout_s``, and the error then names the ``cure``.

    Raises BenchError with the message of one that the function raised, or on timeout;
    ProcessEnded if the process ended otherwise.
    """
    command = [sys.executable, "-P", "-m", __name__, function]
    (answer,) = _answers(command, argument, what, environment, timeout_s, cure)
    return answer


def call_each(
    function: str, argument: Any, *, environment: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """What ``function(argument)`` yields, each when it is known; errors as in `call`."""
    command = [sys.executable, "-P", "-m", __name__, function, "each"]
    return _answers(command, argument, "", environment, None, "")


def _answers(
    command: list[str],
    argument: Any,
    what: str,
    environment: Mapping[str, str] | None,
    timeout_s: float | None,
    cure: str,
) -> Iterator[Any]:
    late = threading.Event()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as errors:
        given.write(json.dumps(argument).encode())
        given.seek(0)
        variables = {**os.environ, **(environment or {})}
        process = subprocess.Popen(
            command, stdin=given, stdout=subprocess.PIPE, stderr=errors, env=variables
        )
        assert process.stdout is not None

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(timeout_s or 0.0, stop)
        if timeout_s is not None:
            timer.start()
        try:
            for line in process.stdout:
                kind, value = json.loads(line)
                if kind == "end":
                    return
                if kind == "error":
                    raise BenchError(_prefixed(what, value))
                yield value
            code = process.wait()
            if late.is_set():
                raise BenchError(_prefixed(what, f"took longer than {timeout_s:g} s; {cure}"))
            errors.seek(0)
            raise ProcessEnded(what, code, errors.read().decode(errors="replace"))
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdout.close()


def _prefixed(what: str, reason: str) -> str:
    return f"{what}: {reason}" if what else reason


def main(function: str, each: bool) -> None:
    """Serve one call: the other end of `call` and `call_each`."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    argument = json.load(sys.stdin)
    module, _, name = function.partition(":")
    try:
        returned = getattr(importlib.import_module(module), name)(argument)
        for value in returned if each else [returned]:
            print(json.dumps(["answer", value]), file=answers)
    except BenchError as error:
        print(json.dumps(["error", str(error)]), file=answers)
        return
    print(json.dumps(["end", None]), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], "each" in sys.argv[2:])
