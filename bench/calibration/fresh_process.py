"""Measure one thing in a fresh process: it inherits no memory, threads or warm caches."""

from __future__ import annotations

import tempfile
from typing import Any

from bench.calibration import host
from bench.calibration.measure_case import measured_case
from bench.calibration.memory_fit import measured_network
from bench.io.subprocess_call import call

TIMEOUT_S = 3600.0


def measure_fresh(request: dict[str, Any], threads: int) -> dict[str, Any]:
    """The result of `measured` from a fresh process with this number of threads.

    Raises BenchError, beginning with the request's ``what``, if there is no result.
    """
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with tempfile.TemporaryDirectory() as cache:  # results of offline stages are not reused
        answer: dict[str, Any] = call(
            f"{__name__}:measured",
            {**request, "threads": threads},
            what=request["what"],
            environment={"BENCH_CACHE": cache, **dict.fromkeys(variables, str(threads))},
            timeout_s=TIMEOUT_S,
            cure="use a smaller --batch",
        )
    return answer


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """Measure a synthetic ``network``, or else a model under a method, in this process."""
    host.use_threads(request["threads"])
    return measured_network(request) if "network" in request else measured_case(request)
