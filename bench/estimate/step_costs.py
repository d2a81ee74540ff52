"""What the steps of a method cost: its own code, traced on two domains, on real or fake tensors.

`shape_costs` is for ``bench fit``, `embedded_costs` for ``bench docs``.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial

import torch

from bench import defaults, registry
from bench.accelerator.determinism import as_in_a_run, seed_everything
from bench.contracts.data import Batch, DomainView, Inputs, batch_length
from bench.contracts.method import Method, counting_shapes
from bench.contracts.model import FoundationModel
from bench.contracts.stream import Split, Stream
from bench.costs.device_profile import ModelledDevice
from bench.costs.modelled import ModelledTracker
from bench.costs.pricing import MemoryFootprint, step_cost
from bench.costs.step_tracer import StepTrace
from bench.costs.tracker import ChargedStep, StepObserver
from bench.errors import BenchError, Unsupported
from bench.estimate.fake_tensors import reads_values
from bench.estimate.fit import modelled
from bench.records.cell import Cell, Component
from bench.registry.component_code import component_digest
from bench.run.deployed import shifted_source
from bench.run.source_model import source_model
from bench.run.window import UNLIMITED, Window

BATCH = 50
BATCHES, DOMAINS = 3, 2
DEPENDS = "its work depends on the data; a run counts it"


@dataclass
class DomainTraces:
    """What a method did in one domain.

    Attributes
    ----------
    begun : steps by kind
    traced : kind and trace of the steps and sections that were traced, in their order
    sections : kinds of those that are sections
    varying : kinds of steps whose work depends on the data
    """

    begun: Counter[str] = field(default_factory=Counter)
    traced: list[tuple[str, StepTrace]] = field(default_factory=list)
    sections: set[str] = field(default_factory=set)
    varying: set[str] = field(default_factory=set)


class MethodTraces(StepObserver):
    """What a method did in its ``domains``; its memory meanwhile; the prediction of one batch."""

    def __init__(self) -> None:
        self.domains: list[DomainTraces] = []
        self.prediction = StepTrace()
        self.footprints: set[MemoryFootprint] = set()
        self._window: Window | None = None
        self._last_kind = ""

    def end_after(self, window: Window, kind: str) -> None:
        """End ``window`` with its second step of a kind: the first makes an optimizer's state."""
        self._window, self._last_kind = window, kind

    def on_window(self) -> None:
        self.domains.append(DomainTraces())

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        self.domains[-1].begun[kind] += 1
        if data_dependent:
            self.domains[-1].varying.add(kind)

    def on_section(self, kind: str) -> None:
        self.domains[-1].sections.add(kind)

    def on_step(self, step: ChargedStep) -> None:
        if step.trace is not None:
            self.domains[-1].traced.append((step.kind, step.trace))
        if self._window is not None and step.kind == self._last_kind:
            self._window.closed |= self.domains[-1].begun[step.kind] > 1

    def on_inference(self, trace: StepTrace) -> None:
        self.prediction = trace

    def on_memory(self, footprint: MemoryFootprint) -> None:
        self.footprints.add(footprint)

    def by_kind(self) -> dict[str, list[StepTrace]]:
        """The traces of each kind of step or section, in their order."""
        found = defaultdict(list)
        for kind, trace in (pair for domain in self.domains for pair in domain.traced):
            found[kind].append(trace)
        return found

    def main_kind(self) -> str:
        """Of the first domain's steps "adapt", else that with most arithmetic; "" if none."""
        begun, traces = self.domains[0].begun, self.by_kind()
        if "adapt" in begun:
            return "adapt"
        return max(begun, key=lambda kind: begun[kind] * traces[kind][-1].flops, default="")


def trace_method(
    method: Method,
    domains: Sequence[DomainView],
    x: Inputs,
    observers: Sequence[StepObserver] = (),
    stop_early: bool = False,
) -> MethodTraces:
    """Let a prepared method adapt to ``domains`` and predict ``x``, on a device where all fits.

    ``stop_early``: the window of the last domain closes after two steps of the main kind.
    """
    traces = MethodTraces()
    profile = modelled(defaults.DEVICE)  # any: what is traced is priced elsewhere
    unlimited = profile.memory_for_applications.model_copy(update={"value": math.inf})
    device = profile.model_copy(update={"memory_for_applications": unlimited})
    tracker = ModelledTracker([device], method.stored, [traces, *observers])
    for number, domain in enumerate(domains, start=1):
        with Window(tracker, UNLIMITED, None, lambda: method.model.module) as window:
            if stop_early and number == len(domains):
                traces.end_after(window, traces.main_kind())
            method.adapt(domain, window)
        domain.close("the domain is over: keep samples of it as replay memory, not the view")
    with torch.no_grad():
        method.predict(x)  # what is made once is made now
        tracker.inference(batch_length(x), partial(method.predict, x))
    tracker.finish()
    return traces


def _prepared(
    method_class: type[Method],
    make_model: Callable[[], FoundationModel],
    source: DomainView,
    stream: Stream | None = None,
) -> Method:
    """A method with its default settings, for which the source is closed as in a run.

    ``stream``: of the source, where it is that of the embedded default.
    """
    method = method_class(method_class.Config())
    if stream is not None and method.uses_shifted_source():
        code = component_digest(registry.entry("stream", defaults.STREAM))
        made_from = [code, stream.data_digest(stream.config)]
        method.shifted_source = shifted_source(type(stream), stream.config, made_from)
    method.prepare(make_model(), source)
    if "source_data" not in method.needs:
        source.close("the source is not on the device")
    return method


# --- bench fit: from shapes --------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """What a method is counted on, as in `Request`: inputs and labels of n samples."""

    inputs: Callable[[int], Inputs]
    labels: Callable[[int], torch.Tensor]
    batch: int
    samples: int

    def view(self, name: str, samples: int, labelled: bool = True) -> DomainView:
        """A domain of so many samples that is passed over once."""
        x, y = self.inputs(samples), self.labels(samples) if labelled else None
        generator = torch.Generator().manual_seed(0)
        return DomainView(name, x, y, self.batch, generator, single_pass=True)


@dataclass(frozen=True)
class MethodCosts:
    """What a method does on its device.

    Attributes
    ----------
    steps : by kind, how often such a step is done for one adaptation step, and its trace when the
        optimizer has its state; empty for a method without steps
    sections : kind and trace of the further work for one domain
    footprints : memory while the method adapted and predicted
    """

    steps: dict[str, tuple[float, StepTrace]]
    sections: list[tuple[str, StepTrace]]
    footprints: set[MemoryFootprint]

    @property
    def peak_bytes(self) -> float:
        """Largest live memory, the runtime's share left out."""
        return max((footprint.live_bytes for footprint in self.footprints), default=0.0)


def shape_costs(
    method_class: type[Method], make_model: Callable[[], FoundationModel], task: Task
) -> MethodCosts:
    """The costs of a method with its default settings, from tensors that may be fake.

    The first domain is one batch: it shows which steps go together and leaves the optimizer its
    state. The second has ``task.samples`` samples and a window that closes after two adaptation
    steps: the result holds the last of them and all that is done for a domain besides. The source
    is one batch, or ``task.samples`` where a replay memory is filled from it. Raises Unsupported
    with the reason where the costs of a method cannot be known so.
    """
    if method_class.uses_device_clock:
        raise Unsupported("its work depends on the device's clock; a run counts it")
    seed_everything(0)
    filled = task.samples if "replay_memory" in method_class.needs else task.batch
    with (
        _explained("its offline stage reads values of the data; a run counts it"),
        counting_shapes(),
    ):
        method = _prepared(method_class, make_model, task.view("source", filled))
    labelled = "target_labels" in method.needs
    with _explained(DEPENDS):
        sizes = {"first": task.batch, "second": task.samples}
        domains = [task.view(name, samples, labelled) for name, samples in sizes.items()]
        x = task.inputs(task.batch)
        traces = trace_method(method, domains, x, stop_early=True)
    first, second = traces.domains
    main, by_kind = traces.main_kind(), traces.by_kind()
    return MethodCosts(
        {kind: (n / first.begun[main], by_kind[kind][-1]) for kind, n in first.begun.items()},
        [(kind, trace) for kind, trace in second.traced if kind in second.sections],
        traces.footprints,
    )


@contextmanager
def _explained(reason: str) -> Iterator[None]:
    """Turn what goes wrong without values into Unsupported with ``reason``."""
    try:
        yield
    except BenchError as error:
        raise Unsupported(str(error)) from error
    except Exception as error:
        if reads_values(error):
            raise Unsupported(reason) from error
        said = (str(error).splitlines() or [""])[0][:150]
        raise Unsupported(
            f"it does not run on tensors without values ({type(error).__name__}: {said}); "
            "a run counts it"
        ) from error


# --- bench docs: on the embedded model ---------------------------------------------------


@dataclass(frozen=True)
class StepCost:
    """The costliest step (or section, or prediction) of one kind, the first of several left out."""

    kind: str
    varies: bool
    operations: float
    bytes: float
    launches: int
    peak_bytes: int
    time_s: float


def embedded_costs(name: str) -> list[StepCost]:
    """A method's steps by default settings on two domains; Unsupported if it does not run."""
    with as_in_a_run():
        stream, source, model = _embedded()
        method_class: type[Method] = registry.load("method", name)
        seed_everything(0)
        generator = torch.Generator().manual_seed(0)
        view = DomainView("source", source.x, source.y, BATCH, generator)
        method = _prepared(method_class, model.clone, view, stream)
        labelled = "target_labels" in method.needs
        domains = []
        for domain in map(stream.domain, stream.domain_names()[:DOMAINS]):
            x, y = (part[: BATCHES * BATCH] for part in (domain.adaptation.x, domain.adaptation.y))
            domains.append(DomainView(domain.name, x, y if labelled else None, BATCH, generator))
        traces = trace_method(method, domains, x[:BATCH])
    device = modelled(defaults.DEVICE)
    sections = {kind for domain in traces.domains for kind in domain.sections}
    varying = {kind for domain in traces.domains for kind in domain.varying}
    steps = {**traces.by_kind(), "predict": [traces.prediction]}
    return [
        _costliest(f"{kind} (section)" if kind in sections else kind, kind in varying, each, device)
        for kind, each in steps.items()
    ]


def _costliest(
    kind: str, varies: bool, traces: Sequence[StepTrace], device: ModelledDevice
) -> StepCost:
    # The first of several makes the optimizer's state, which later ones find.
    priced = [(step_cost(trace, device).time_s, trace) for trace in traces[1:] or traces]
    time_s, t = max(priced, key=lambda pair: pair[0])
    return StepCost(kind, varies, t.flops, t.bytes, t.launches, t.peak_bytes, time_s)


@cache
def _embedded() -> tuple[Stream, Split, FoundationModel]:
    """Stream, source samples and trained source model of the embedded default."""

    def component(kind: str, name: str) -> Component:
        entry, config = registry.entry(kind, name), registry.load(kind, name).Config()
        settings = config.model_dump(mode="json")
        return Component(name=name, config=settings, code=component_digest(entry))

    stream_class = registry.load("stream", defaults.STREAM)
    config = stream_class.Config()
    stream: Stream = stream_class(config, 0)
    cell = Cell(
        method=Component(name=defaults.METHOD, code=""),
        model=component("model", defaults.MODEL),
        stream=component("stream", defaults.STREAM),
        data=stream_class.data_digest(config),
        device=defaults.DEVICE,
        device_digest="",
        protocol={},
        seed=0,
    )
    return stream, stream.source().adaptation, source_model(cell, stream)
