"""Ask for estimates: a process counts them, and is started anew after a method that ended it.

Torch ends a process where an exception meets its C++ code in the wrong place; that must cost the
method its estimate and no more. This process imports no torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from bench.errors import BenchError
from bench.estimate.fit import Estimate, Request


def estimates(request: Request) -> Iterator[Estimate]:
    """The estimates of a request in the order of its methods, each when it is known.

    Raises BenchError if the model cannot be built or the counting process does not start.
    """
    left = list(request.methods)
    while left:
        for found in _answers(request.model_copy(update={"methods": tuple(left)})):
            left.remove(found.method)
            yield found


def _answers(request: Request) -> Iterator[Estimate]:
    """Estimates of one process, up to the method that ended it."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.estimate.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it says below why it ended
                process.stdin.write(request.model_dump_json().encode())
                process.stdin.close()
            lines = iter(process.stdout)
            _require_ready(next(lines, b""), errors)
            waiting = list(request.methods)
            for line in lines:
                waiting.pop(0)
                yield Estimate.model_validate_json(line)
            if waiting:
                yield Estimate(method=waiting[0], unavailable=_ended(process.wait()))
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _require_ready(line: bytes, errors: IO[bytes]) -> None:
    answer: dict[str, Any] = json.loads(line) if line.strip() else {}
    if "error" in answer:
        raise BenchError(answer["error"])
    if "ready" not in answer:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        raise BenchError(
            "fit: the counting process ended before it began: "
            f"{said[-1][:300] if said else 'it said nothing'}; run 'bench doctor'"
        )


def _ended(code: int) -> str:
    if code == -signal.SIGALRM:
        return "counting it took too long; a run counts it"
    how = signal.Signals(-code).name if code < 0 else f"code {code}"
    return f"counting it ended the process ({how}); a run counts it"
