"""The estimation worker: counts methods in a process of its own, for `bench.estimate.fit`."""

from __future__ import annotations

import copy
import signal
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch

from bench import registry
from bench.contracts.model import FoundationModel
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import step_cost
from bench.errors import BenchError, Unsupported
from bench.estimate.fake_tensors import FakeMode, emptied, sample_inputs, without_values
from bench.estimate.fit import Estimate, Price, Request, modelled
from bench.estimate.step_costs import MethodCosts, Task, shape_costs
from bench.study.suite import validated

VQA = "visual-question-answering"
LIMIT_S = 120
"""Wall seconds for one method, after which SIGALRM ends the process."""


def serve(values: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Yield None when the model is built, then each `Estimate`; BenchError if it cannot be."""
    request = Request.model_validate(values)
    for plugin in request.plugins:
        registry.add_plugin(plugin)
    devices = {name: modelled(name) for name in request.devices}
    fakes = FakeMode()
    model = emptied(build(request), fakes)
    task = made_up(model, fakes, request)
    yield None
    for name in request.methods:
        signal.alarm(LIMIT_S)
        found = estimate(name, model, fakes, task, devices)
        signal.alarm(0)
        yield found.model_dump(mode="json")


def build(request: Request) -> FoundationModel:
    """The request's model with random weights; BenchError if it does not take the shape."""
    model_class = registry.load("model", request.model)
    config = validated(model_class.Config, {}, f"model {request.model!r}")
    try:
        model: FoundationModel = model_class.build(config, request.shape, request.classes)
        return model
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(
            f"model {request.model!r} cannot be built for samples of shape "
            f"{','.join(map(str, request.shape))}: {type(error).__name__}: {error}; give another "
            "--shape"
        ) from error


def made_up(model: FoundationModel, fakes: FakeMode, request: Request) -> Task:
    """Inputs of the request's shape, and labels that fit what the model gives for them."""
    kind = type(model)
    inputs = partial(sample_inputs, request.shape, words=kind.task == VQA, boxes=kind.takes_boxes)

    @cache
    def labels(n: int) -> torch.Tensor:
        x = inputs(n)
        with torch.no_grad():
            return model.rules.sample_labels(model(x), x, request.classes)

    with without_values(fakes):
        for n in {request.batch, request.samples}:
            labels(n)  # now: what is read for labels is no assumption of a method
    return Task(inputs, labels, request.batch, request.samples)


def estimate(
    name: str,
    model: FoundationModel,
    fakes: FakeMode,
    task: Task,
    devices: dict[str, ModelledDevice],
) -> Estimate:
    """Count a method on a copy of a model without values, and price it for every device."""
    try:
        method_class = registry.load("method", name)
        if type(model).task not in method_class.tasks:
            tasks = ", ".join(method_class.tasks)
            raise Unsupported(f"it does {tasks}; the model's task is {type(model).task}")
        fakes.assumed = 0
        with without_values(fakes):
            costs = shape_costs(method_class, partial(copy.deepcopy, model), task)
    except BenchError as error:
        return Estimate(method=name, unavailable=str(error))
    prices = {key: price(costs, device) for key, device in devices.items()}
    return Estimate(method=name, assumes=fakes.assumed > 0, prices=prices)


def price(costs: MethodCosts, device: ModelledDevice) -> Price:
    """What was traced, in seconds, joules and bytes of a device."""
    steps = [(share, step_cost(trace, device)) for share, trace in costs.steps.values()]
    sections = [step_cost(trace, device) for _, trace in costs.sections]
    known = not device.energy_unavailable
    return Price(
        memory_bytes=max(footprint.needed_bytes(device) for footprint in costs.footprints),
        step_s=sum(share * cost.time_s for share, cost in steps) if steps else None,
        step_j=sum(share * cost.energy_j for share, cost in steps) if steps and known else None,
        domain_s=sum(cost.time_s for cost in sections),
        domain_j=sum(cost.energy_j for cost in sections) if known else None,
    )
