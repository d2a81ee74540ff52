"""A process that measures one thing and prints it: ``python -P -m`` this, a request on its input.

Each case gets a fresh process, so that none inherits another's memory, threads or warm caches.
The answer is one JSON object on the last line of standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from typing import Any

from bench.costs.step_tracer import StepTrace
from bench.errors import BenchError

LIMIT_S = 3600.0


def ask(request: dict[str, Any], threads: int) -> dict[str, Any]:
    """The answer of a fresh process; BenchError with its last words if it has none."""
    environment = dict(os.environ)
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[variable] = str(threads)
    with tempfile.TemporaryDirectory() as cache:
        environment["BENCH_CACHE"] = cache  # what offline stages keep there is of no use later
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", __name__],
                input=json.dumps({**request, "threads": threads}),
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(
                f"{request['what']}: took longer than {LIMIT_S:g} s; use a smaller --batch"
            ) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        words = done.stderr.strip().splitlines()
        why = words[-1][:300] if words else f"exit code {done.returncode}, and it said nothing"
        raise BenchError(f"{request['what']}: {why}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def packed(trace: StepTrace) -> dict[str, Any]:
    """A trace as JSON; `unpacked` makes it again."""
    return {
        "operations": [[*key, n] for key, n in trace.operations.items()],
        "details": [[*key, n] for key, n in trace.details.items()],
        "peak_bytes": trace.peak_bytes,
        "resident_bytes": trace.resident_bytes,
    }


def unpacked(values: dict[str, Any]) -> StepTrace:
    """A trace from what `packed` made of it."""
    return StepTrace(
        Counter({tuple(key): n for *key, n in values["operations"]}),  # type: ignore[misc]
        values["peak_bytes"],
        values["resident_bytes"],
        Counter({tuple(key): n for *key, n in values["details"]}),  # type: ignore[misc]
    )


def main() -> None:
    """Read the request, do it, print the answer."""
    request = json.load(sys.stdin)
    from bench.calibration import host as machine

    machine.use_threads(request["threads"])
    if "network" in request:
        from bench.calibration.memory_fit import measured_network

        answer = measured_network(request)
    else:
        from bench.calibration.measure_case import measured_case

        answer = measured_case(request)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
