"""Measure the steps of one model under one method, in this or in a fresh process.

A fresh process inherits no memory, threads or warm caches.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_map

from bench.calibration import host
from bench.calibration.memory_fit import measured_network, warm_runtime
from bench.calibration.reference_workloads import CLASSES, INFERENCE, METHODS, MODELS, Repeated
from bench.calibration.step_timer import Watch, WatchedSteps
from bench.contracts.data import Inputs
from bench.contracts.method import Method
from bench.costs.device_profile import MeasuredDevice
from bench.costs.measured import MeasuredTracker
from bench.costs.step_tracer import StepTrace
from bench.io.subprocess_call import call
from bench.meters import process_memory as memory
from bench.meters.base import Unavailable
from bench.probe.timing import Clock
from bench.run.window import UNLIMITED, Window

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def measured_case(request: dict[str, Any]) -> dict[str, Any]:
    """The result of one case as JSON; ``skipped`` holds the reason if it does not apply."""
    spec, method = MODELS[request["model"]], METHODS[request["method"]]
    accelerator = request["accelerator"]
    torch.manual_seed(0)
    spec.preload()
    warm_runtime(accelerator)
    runtime = memory.held_bytes(accelerator)
    model = spec.build()
    if method.blocks and not model.blocks():
        return {"skipped": f"{request['model']} declares no blocks"}
    model.module.to(accelerator)
    made = method.make()
    x = tree_map(lambda part: part.to(accelerator), spec.inputs(request["batch"]))
    y = torch.randint(CLASSES, (request["batch"],), device=accelerator)
    clock = CLOCKS[request["clock"]]
    watch = Watch(request["repeats"], accelerator, clock, request["threads"])
    parameters = sum(p.numel() for p in model.module.parameters())
    made.prepare(model, Repeated(x, y, 1))
    del model
    _run(request["method"], made, x, y, watch)
    seen = watch.seen
    return {
        "trace": trace_to_json(seen.trace),
        "seconds": seen.seconds,
        "busy": seen.busy,
        "runtime_bytes": runtime,
        "resident_bytes": seen.peak_bytes - runtime,
        "parameters": parameters,
    }


def _run(name: str, made: Method, x: Inputs, y: torch.Tensor, watch: Watch) -> None:
    if name == INFERENCE:
        with torch.no_grad():
            while not watch.done:
                with watch.step(made.stored):
                    made.predict(x)
        return
    view = Repeated(x, y, 1_000_000)
    steps = WatchedSteps(watch, made.stored)
    machine = MeasuredDevice(name="check", title="this machine", cost="measured")
    tracker = MeasuredTracker(machine, Unavailable("the check needs no energy", {}), [steps])
    with Window(tracker, UNLIMITED) as window:
        steps.window = window
        made.adapt(view, window)


def trace_to_json(trace: StepTrace) -> dict[str, Any]:
    """A trace as JSON; the inverse is `trace_from_json`."""
    return {
        "operations": [[*key, n] for key, n in trace.operations.items()],
        "details": [[*key, n] for key, n in trace.details.items()],
        "peak_bytes": trace.peak_bytes,
        "resident_bytes": trace.resident_bytes,
    }


def trace_from_json(values: dict[str, Any]) -> StepTrace:
    """A trace from JSON; the inverse of `trace_to_json`."""
    return StepTrace(
        Counter({tuple(key): n for *key, n in values["operations"]}),  # type: ignore[misc]
        values["peak_bytes"],
        values["resident_bytes"],
        Counter({tuple(key): n for *key, n in values["details"]}),  # type: ignore[misc]
    )


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
            timeout_s=3600.0,
            cure="use a smaller --batch",
        )
    return answer


def measured(request: dict[str, Any]) -> dict[str, Any]:
    """Measure a synthetic ``network``, or else a model under a method, in this process."""
    host.use_threads(request["threads"])
    return measured_network(request) if "network" in request else measured_case(request)
