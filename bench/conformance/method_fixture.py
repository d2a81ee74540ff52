"""The method under check, prepared as often as asked on one source model, and what it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from bench import defaults, registry
from bench.accelerator.determinism import seed_everything
from bench.conformance.base import CheckFailed, subject_of
from bench.contracts.data import (
    Batch,
    DomainView,
    Inputs,
    LabelledBatch,
    batch_length,
    take,
)
from bench.contracts.method import Method
from bench.contracts.model import FoundationModel
from bench.contracts.protocol import protocol_config
from bench.contracts.stream import Domain, Split
from bench.costs.device_profile import MeasuredDevice
from bench.costs.measured import MeasuredTracker
from bench.costs.tracker import StepObserver
from bench.errors import BenchError, Unsupported
from bench.meters.base import Unavailable
from bench.records.cell import Cell, Component
from bench.run.window import UNLIMITED, Window

MODEL, OTHER_MODEL = defaults.MODEL, defaults.BATCH_NORM_MODEL
MODEL_SETTINGS: dict[str, dict[str, Any]] = {MODEL: defaults.SMALL_MODEL, OTHER_MODEL: {}}
SCENARIO, SCENARIO_SETTINGS = defaults.STREAM, defaults.SMALL_STREAM
BATCH = 16


def setting_of(parts: str) -> Setting:
    """The `setting` of a method's own parts, as JSON, or the embedded one."""
    if not parts:
        return setting()
    name, settings = _own(json.loads(parts)["stream"])
    return setting(name, json.dumps(settings))


def _own(part: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a part."""
    return part["name"], {k: v for k, v in part.items() if k != "name"}


@dataclass(frozen=True)
class Setting:
    """What all checks share: the source, two target domains, and what models are built for."""

    source: Split
    domains: tuple[Domain, Domain]
    input_shape: tuple[int, ...]
    classes: int


@cache
def setting(stream_name: str = SCENARIO, settings: str = "") -> Setting:
    """Made once in a process; ``settings`` of another stream than the embedded one, as JSON."""
    stream_class = registry.load("stream", stream_name)
    given = json.loads(settings) if settings else SCENARIO_SETTINGS
    stream = stream_class(stream_class.Config.model_validate(given), 0)
    source = stream.source().adaptation
    first, second, *_ = (stream.domain(name) for name in stream.domain_names()[:2])
    return Setting(source, (first, second), stream.input_shape, stream.classes)


@cache
def source_model(name: str, parts: str = "") -> FoundationModel:
    """Made once in a process: two seconds of training bring it to about 97 % on the source.

    A model that is right and confident is needed for methods that choose samples by confidence.
    ``parts``: a method's own, as JSON, see `Method.conformance_on`.
    """
    shared, model_class = setting_of(parts), registry.load("model", name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = _own(json.loads(parts)["model"])[1] if parts else MODEL_SETTINGS[name]
        settings = model_class.Config.model_validate(own)
        model: FoundationModel = model_class.build(settings, shared.input_shape, shared.classes)
        _train(model, shared.source)
    return model


def _train(model: FoundationModel, source: Split, epochs: int = 20, rate: float = 5e-3) -> None:
    view = DomainView("source", source.x, source.y, 50, torch.Generator().manual_seed(0))
    steps = epochs * (len(view) // view.batch_size)
    optimizer = torch.optim.AdamW(model.module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for _, batch in zip(range(steps), view.infinite(), strict=False):
        loss = model.loss(model(batch.x), batch.y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    model.train(False)


@subject_of("method")
class MethodFixture:
    """A registered method with what a check does to it.

    Unless a check says otherwise a domain has 40 samples in batches of 16, 16 and 8. Raises
    BenchError if the method does not do the task of the data at hand. ``network``: the embedded
    model that it is prepared on; the one with BatchNorm if it has nothing to work on in the first.
    """

    patience = 1
    too_slow = "adapt must return when window.closed, and loop over no endless stream"

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = registry.entry("method", name)
        self.method_class: type[Method] = registry.load("method", name)
        own = self.method_class.conformance_on
        if "classification" not in self.method_class.tasks and not own:
            raise BenchError(
                f"method {name!r} does {', '.join(self.method_class.tasks)}; the checks run on "
                f"{SCENARIO}, which is classification, unless conformance_on names other data"
            )
        self.parts = json.dumps(own) if own else ""
        self.network = own["model"]["name"] if own else MODEL
        source_model(self.network, self.parts)  # before the first check, whose time would pay
        self.labelled = "target_labels" in self.method_class.needs

    @property
    def setting(self) -> Setting:
        """The data that the method is checked on."""
        return setting_of(self.parts)

    def cell(self, stream: str, protocol: str, target_labels: bool) -> Cell:
        """A cell of this method with default settings; digests are left open."""

        def component(kind: str, name: str) -> Component:
            settings = registry.load(kind, name).Config()
            return Component(name=name, config=settings.model_dump(mode="json"), code="")

        declared = registry.load("protocol", protocol).conformance_config
        config = protocol_config({"name": protocol, **declared, "batch_size": BATCH})
        return Cell(
            method=component("method", self.name),
            model=component("model", self.network),
            stream=component("stream", stream),
            data="",
            device=defaults.DEVICE,
            device_digest="",
            protocol=config.model_dump(mode="json"),
            seed=0,
            target_labels=target_labels,
        )

    def prepare(
        self, batch_size: int = BATCH, samples: int = 60, dtype: torch.dtype = torch.float32
    ) -> Method:
        """The method, prepared on a copy of the source model and ``samples`` of the source.

        All generators are seeded alike before. As in a run the source is closed afterwards,
        unless the method declares that it needs it.
        """
        try:
            return self._prepare(batch_size, samples, dtype)
        except Unsupported:
            if self.parts or self.network == OTHER_MODEL:
                raise
            self.network = OTHER_MODEL
            return self._prepare(batch_size, samples, dtype)

    def _prepare(self, batch_size: int, samples: int, dtype: torch.dtype) -> Method:
        shared = self.setting
        model = source_model(self.network, self.parts).clone()
        seed_everything(0)
        model.module.to(dtype)
        x = _in(take(shared.source.x, torch.arange(samples)), dtype)
        y = shared.source.y[:samples].clone()
        source = DomainView("source", x, y, batch_size, torch.Generator().manual_seed(0))
        short = self.method_class.conformance_config  # defaults, but with little offline work
        method = self.method_class(self.method_class.Config.model_validate(short))
        method.prepare(model, source)
        if "source_data" not in method.needs:
            undeclared = "source data after prepare without declaring needs = ('source_data',)"
            source.close(f"{self.name} reads {undeclared}")
        return method

    def view(
        self,
        domain: int = 0,
        start: int = 0,
        samples: int = 40,
        *,
        batch_size: int = BATCH,
        single_pass: bool = False,
        dtype: torch.dtype = torch.float32,
        of_class: int | None = None,
    ) -> WatchedView:
        """Samples of a target domain, with labels if the method needs them.

        ``of_class``: those with this label alone, of texts those that have it somewhere.
        """
        split = self.setting.domains[domain].adaptation
        chosen = torch.arange(len(split))
        if of_class is not None:
            chosen = chosen[(split.y == of_class).reshape(len(split), -1).any(dim=1)]
        chosen = chosen[start : start + samples]
        y = split.y[chosen] if self.labelled else None
        generator = torch.Generator().manual_seed(domain)
        x = _in(take(split.x, chosen), dtype)
        least = source_model(self.network, self.parts).least_batch
        return WatchedView(f"domain-{domain}", x, y, batch_size, generator, single_pass, least)

    def adapt(self, method: Method, view: DomainView, window: Window | None = None) -> None:
        """Adapt to a domain as the periodic protocol does, untraced unless a window is given."""
        with window or unlimited_window(method) as opened:
            method.adapt(view, opened)
        view.close("the domain is over: keep samples of it as replay memory, not the view")

    def inputs(
        self, domain: int = 0, samples: int = 40, dtype: torch.dtype = torch.float32
    ) -> Inputs:
        """Held-out inputs of a domain."""
        return _in(take(self.setting.domains[domain].test.x, torch.arange(samples)), dtype)

    def predict_raw(self, method: Method, x: Inputs) -> Any:
        """Whatever the method predicts for ``x``."""
        with torch.no_grad():
            return method.predict(x)

    def predict(self, method: Method, x: Inputs) -> Tensor:
        """Outputs for ``x``; `CheckFailed` unless of a shape as the task has them."""
        outputs: Tensor = self.predict_raw(method, x)
        n = batch_length(x)
        try:
            shape = tuple(outputs.shape)
            method.model.rules.require_outputs(shape, n, self.setting.classes, "a check's inputs")
        except BenchError as error:
            raise CheckFailed(
                f"predict gave outputs of shape {shape} for {n} samples: {error}"
            ) from error
        return outputs

    def require_finite(self, method: Method, x: Inputs, when: str) -> None:
        """`CheckFailed` if a weight or a prediction is not a finite number."""
        for name, tensor in method.model.module.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise CheckFailed(f"weights {name!r} are not finite {when}: guard division and log")
        if not self.predict(method, x).isfinite().all():
            raise CheckFailed(f"predictions are not finite {when}: guard division and log")


def _in(x: Inputs, dtype: torch.dtype) -> Inputs:
    """Inputs with their real numbers in ``dtype``."""
    return tree_map(lambda part: part.to(dtype) if part.is_floating_point() else part, x)


def unlimited_window(method: Method, *observers: StepObserver) -> Window:
    """A window that charges this machine's time and traces nothing, so that checks are quick."""
    device = MeasuredDevice(name="check", title="this machine", cost="measured")
    tracker = MeasuredTracker(device, Unavailable("a check needs no energy", {}), observers)
    return Window(tracker, UNLIMITED, None, lambda: method.model.module)


class WatchedView(DomainView):
    """A domain's view that remembers what it handed out, and how often labels were asked for.

    No observer of steps can see that: a method may read labels between its steps.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.label_reads = 0
        self.handed: list[Batch] = []

    @property
    def y(self) -> Tensor:
        """The labels, if the method may see them; asking is counted."""
        self.label_reads += 1
        return super().y

    def _batch(self, chosen: Tensor) -> Batch:
        given = super()._batch(chosen)
        if isinstance(given, LabelledBatch):
            batch: _Batch = _LabelledBatch(given.x, given.sample_ids, given.y)
        else:
            batch = _Batch(given.x, given.sample_ids)
        batch.view = self
        self.handed.append(batch)
        return batch


class _Batch(Batch):
    view: WatchedView

    @property
    def y(self) -> Tensor:
        self.view.label_reads += 1
        return super().y


class _LabelledBatch(_Batch, LabelledBatch):
    pass
