"""Measure one model under one method, in the process that this is called in."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from bench.calibration.reference_workloads import CLASSES, INFERENCE, METHODS, MODELS, Repeated
from bench.calibration.step_timer import Watch, Watched, WatchedSteps
from bench.calibration.timing import Clock
from bench.contracts.data import Inputs
from bench.contracts.method import Method
from bench.costs import process_memory as memory
from bench.costs.device_profile import MeasuredDevice
from bench.costs.measured import MeasuredTracker
from bench.meters.errors import Unavailable
from bench.run.window import UNLIMITED, Window

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


def measured_case(request: dict[str, Any]) -> dict[str, Any]:
    """What one case came to, as JSON; ``skipped`` holds the reason of one that does not apply."""
    from bench.calibration.child_process import packed

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
        "trace": packed(seen.trace),
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


def warm_runtime(accelerator: str) -> None:
    """Load what a first training step loads, so that it counts as runtime and not as the step's.

    Torch's optimizers import its compiler on their first step, and the kernels of convolutions,
    products and attention set up their libraries.
    """
    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 128))
    net.to(accelerator)
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(2):
        out = net(torch.rand(4, 8, 6, 6, device=accelerator)).view(4, 2, 8, 8)
        nn.functional.scaled_dot_product_attention(out, out, out).sum().backward()
        optimizer.step()
    memory.long_run()
    memory.settle(accelerator)
