"""What one step of a method costs on the embedded model, counted as in a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from bench import defaults, registry
from bench.conformance.method_fixture import UNLIMITED, WatchedWindow, as_in_a_run
from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.contracts.stream import Stream
from bench.costs.device_profile import ModelledDevice, load_device
from bench.costs.pricing import Cost, step_cost
from bench.costs.step_tracer import StepTrace, StepTracer
from bench.costs.tracker import CostTracker, Key, ModelledCosts
from bench.records.cell import Cell, Component
from bench.registry.component_code import component_digest
from bench.run.determinism import seed_everything
from bench.run.source_model import source_model

MODEL, SCENARIO, DEVICE, BATCH = defaults.MODEL, defaults.STREAM, defaults.DEVICE, 50
BATCHES, DOMAINS = 3, 2


@dataclass(frozen=True)
class Work:
    """The costliest step (or section, or prediction) of one kind, the first of several left out.

    Attributes
    ----------
    kind : as the method calls it; "predict" is inference
    varies : whether the method says that the work depends on the data
    operations, bytes, launches, peak_bytes : counted; the peak includes what the method keeps
    time_s : modelled on the device
    """

    kind: str
    varies: bool
    operations: float
    bytes: float
    launches: int
    peak_bytes: int
    time_s: float


def counted(name: str) -> list[Work]:
    """The work of a method with default settings, batch size 50, on two domains in a row.

    Raises Unsupported if it does not run on the embedded model.
    """
    with as_in_a_run():
        return _counted(name)


def _counted(name: str) -> list[Work]:
    device = load_device(DEVICE)
    assert isinstance(device, ModelledDevice)
    stream, source, model = _embedded()
    seed_everything(0)
    method_class: type[Method] = registry.load("method", name)
    method = method_class(method_class.Config())
    generator = torch.Generator().manual_seed(0)
    split = source.adaptation
    method.prepare(model.clone(), DomainView("source", split.x, split.y, BATCH, generator))
    tracker, seen = CostTracker([], method.stored), _Bill(device)
    tracker.devices.append(seen)
    sections: set[str] = set()
    varying: set[str] = set()
    for domain in map(stream.domain, stream.domain_names()[:DOMAINS]):
        x, y = (values[: BATCHES * BATCH] for values in (domain.adaptation.x, domain.adaptation.y))
        labels = y if "target_labels" in method.needs else None
        view = DomainView(domain.name, x, labels, BATCH, generator)
        with WatchedWindow(tracker, UNLIMITED, None, method.model.module) as window:
            method.adapt(view, window)
        view.close("the domain is over")
        sections |= window.sections
        varying |= window.varying
    tracker.finish()
    with torch.no_grad():
        method.predict(x[:BATCH])
        with StepTracer(method.stored()) as tracer:
            method.predict(x[:BATCH])
    seen.seen["predict"] = [(tracer.trace, step_cost(tracer.trace, device))]
    return [
        _work(kind, steps, kind in sections, kind in varying) for kind, steps in seen.seen.items()
    ]


def _work(kind: str, steps: list[tuple[StepTrace, Cost]], section: bool, varies: bool) -> Work:
    # The first of several makes the optimizer's state, which later ones find.
    trace, cost = max(steps[1:] or steps, key=lambda step: step[1].time_s)
    return Work(
        f"{kind} (section)" if section else kind,
        varies,
        trace.flops,
        trace.bytes,
        trace.launches,
        trace.peak_bytes,
        cost.time_s,
    )


class _Bill(ModelledCosts):
    """A bill that remembers every step that was counted, by kind."""

    def __init__(self, device: ModelledDevice) -> None:
        super().__init__(device)
        self.seen: dict[str, list[tuple[StepTrace, Cost]]] = {}

    def price(self, key: Key, trace: StepTrace) -> Cost:
        cost = super().price(key, trace)
        self.seen.setdefault(key[0], []).append((trace, cost))
        return cost


@cache
def _embedded() -> tuple[Stream, Any, FoundationModel]:
    """Stream, source and trained source model of the embedded default."""

    def component(kind: str, name: str) -> Component:
        entry, config = registry.entry(kind, name), registry.load(kind, name).Config()
        settings = config.model_dump(mode="json")
        return Component(name=name, config=settings, code=component_digest(entry))

    stream_class = registry.load("stream", SCENARIO)
    config = stream_class.Config()
    stream: Stream = stream_class(config, 0)
    cell = Cell(
        method=Component(name=defaults.METHOD, code=""),
        model=component("model", MODEL),
        stream=component("stream", SCENARIO),
        data=stream_class.data_digest(config),
        device=DEVICE,
        device_digest="",
        protocol={},
        seed=0,
    )
    return stream, stream.source(), source_model(cell, stream)
