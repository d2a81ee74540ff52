"""Measure the steps of one model under one method in the current process."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_map

from bench.calibration.memory_fit import warm_runtime
from bench.calibration.reference_workloads import CLASSES, INFERENCE, METHODS, MODELS, Repeated
from bench.calibration.step_timer import Watch, Watched, WatchedSteps
from bench.calibration.timing import Clock
from bench.contracts.data import Inputs
from bench.contracts.method import Method
from bench.costs import process_memory as memory
from bench.costs.device_profile import MeasuredDevice
from bench.costs.measured import MeasuredTracker
from bench.costs.step_tracer import StepTrace
from bench.meters.errors import Unavailable
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
    x = _on(accelerator, spec.inputs(request["batch"]))
    y = torch.randint(CLASSES, (request["batch"],), device=accelerator)
    clock = CLOCKS[request["clock"]]
    watch = Watch(request["repeats"], accelerator, clock, request["threads"])
    parameters = sum(p.numel() for p in model.module.parameters())
    made.prepare(model, Repeated(x, y, 1))
    del model
    _run(request["method"], made, x, y, watch)
    seen: Watched = watch.seen
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


def _on(accelerator: str, x: Inputs) -> Inputs:
    return tree_map(lambda part: part.to(accelerator), x)


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
