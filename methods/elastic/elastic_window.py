"""A window whose steps train only the tensors that were selected, and that selects them anew."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any, Literal, cast

from pydantic import Field, model_validator
from torch import Tensor, nn

from bench import Batch, BenchError, DomainView, FoundationModel, MethodConfig, Unsupported, Window
from bench.contracts.data import Batches, Inputs
from bench.contracts.method import only_shapes
from bench.costs.device_profile import ModelledDevice, load_device

from .importance import Importance, Probe
from .selection import SOLVERS, Solver, backward_share, quantised
from .tensor_costs import Quantity, TensorCosts, tensor_costs

CostDevice = Literal[
    "none", "xavier-nx", "agx-xavier", "agx-orin", "orin-nano", "jetson-tx2", "raspberry-pi-4b",
    "raspberry-pi-5", "stm32f746",
]  # fmt: skip
RECOUNTED = 2
"""Steps of a shape after a selection that are counted: the first may make an optimizer's state."""


class ElasticConfig(MethodConfig):
    """What is trained: see `ElasticFineTuneConfig` for what each setting means.

    They are ``cost_ratio``, ``select_interval``, ``select_by``, ``solver``, ``resolution``,
    ``probe``, ``cost`` and ``cost_device``.
    """

    cost_ratio: float = Field(0.5, gt=0, le=1)
    select_interval: int = Field(4, ge=1, le=10_000)
    select_by: Importance = "taylor"
    solver: Solver = "exact"
    resolution: int = Field(1000, ge=10, le=100_000)
    probe: Literal["whole", "early-stopped"] = "whole"
    cost: Quantity = "operations"
    cost_device: CostDevice = "none"

    @model_validator(mode="after")
    def _has_its_device(self) -> ElasticConfig:
        if self.cost == "energy" and self.cost_device == "none":
            raise ValueError("cost: energy is a modelled device's: give cost_device")
        if self.cost_device != "none" and self.cost not in ("time", "energy"):
            raise ValueError(f"cost_device: {self.cost} is counted; leave the device out")
        return self


def new_state() -> dict[str, Any]:
    """What a method keeps of its selections and of costs by the shape of a batch, plain values."""
    return {
        "costs": {}, "domain": "", "since": 0, "counted": {}, "selected": [], "times": {},
        "selections": 0, "predicted": 0.0, "tensors": 0,
    }  # fmt: skip


class ElasticWindow:
    """Takes the place of ``window`` in the training loop of a method over ``model``.

    ``state``: a `new_state`, which goes on from loop to loop. What requires a gradient when a loop
    begins is what the method trains, and does again after it.
    """

    def __init__(
        self,
        window: Window,
        model: FoundationModel,
        domain: DomainView,
        config: Any,
        state: dict[str, Any],
    ) -> None:
        self._window, self._model, self._domain = window, model, domain
        self._config, self._state = config, state
        self._trained: dict[str, nn.Parameter] = {}
        self._every = config.select_interval * domain.batches_per_pass
        self._two_pass = config.select_by == "two-pass"
        if state["domain"] != domain.name:
            state.update(domain=domain.name, since=self._every)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._window, name)

    def steps(
        self, batches: Iterable[Batch], kind: str = "adapt", data_dependent: bool = False
    ) -> Iterator[Batch]:
        """As `Window.steps`: of each batch, only the selected tensors are trained.

        At a selection the step trains all of them and is watched: ``probe``.
        """
        named = self._model.module.named_parameters()
        self._trained = {name: p for name, p in named if p.requires_grad}
        if not self._trained:
            raise Unsupported("the method trains no tensor, so that none can be selected")
        self._ground(self._state["selected"] or list(self._trained))
        try:
            yield from self._selected(iter(batches), kind, data_dependent)
        finally:
            self._ground(list(self._trained))

    def _selected(
        self, batches: Iterator[Batch], kind: str, data_dependent: bool
    ) -> Iterator[Batch]:
        state = self._state
        while True:
            # Taken as one loop, what must not change between steps is looked at once
            if (alike := self._alike(batches, data_dependent)) > 0:
                assert isinstance(batches, Batches)
                begun = state["since"]
                steps = self._window.steps(batches.first(alike), kind)
                with closing(cast("Generator[Batch, None, None]", steps)):
                    for each in steps:
                        yield each
                        state["since"] += 1
                if state["since"] < begun + alike:  # there are no more, or they do not fit
                    return
            try:
                batch = next(batches)
            except StopIteration:
                return
            if state["since"] >= self._every:
                costs = self._costs(batch.x)
                self._ground(self._probed(costs))
                probe = Probe(self._model.module, self._trained, undone=self._two_pass)
                with self._window.step(batch, kind="probe") as fits:
                    if not fits:
                        return
                    with probe.first():
                        yield batch
                    if self._two_pass:
                        with probe.second():
                            yield batch
                        probe.undo()
                self._select(costs, probe)
                if not self._two_pass:
                    state["since"] += 1
                    continue
            counted = state["counted"].get(shape := _shape(batch.x), 0)
            recount = data_dependent or counted < RECOUNTED
            with self._window.step(batch, kind=kind, data_dependent=recount) as fits:
                if not fits:
                    return
                yield batch
            state["counted"][shape] = min(counted + 1, RECOUNTED)
            state["since"] += 1

    def _alike(self, batches: Iterator[Batch], data_dependent: bool) -> int:
        """How many batches come before the next selection whose costs are all known; or 0."""
        view = self._domain
        if data_dependent or not isinstance(batches, Batches) or len(view) % view.batch_size:
            return 0
        if not isinstance(view.x, Tensor):  # texts may be of different lengths
            return 0
        shape = str((view.batch_size, *view.x.shape[1:]))
        known = self._state["counted"].get(shape, 0) >= RECOUNTED
        return self._every - self._state["since"] if known else 0

    def _probed(self, costs: TensorCosts) -> list[str]:
        """Tensors whose importance is asked for."""
        if self._config.probe == "whole":
            return costs.names
        left = backward_share(self._config.cost_ratio, costs.forward, costs.backward)
        within = [k for k, way in enumerate(costs.before) if way <= left * costs.backward]
        return [costs.names[k] for k in within]

    def _costs(self, x: Inputs) -> TensorCosts:
        """Of every trained tensor, on a batch of this shape."""
        known, shape = self._state["costs"], _shape(x)
        if shape not in known:
            c = self._config
            with self._window.section("profile", shape):
                costs = tensor_costs(
                    self._model, x, list(self._trained), c.cost, _device(c.cost_device)
                )
            known[shape] = asdict(costs)
        return TensorCosts(**known[shape])

    def _select(self, costs: TensorCosts, probe: Probe) -> None:
        c, state = self._config, self._state
        with self._window.section("select"):
            found = probe.importance(c.select_by)
            if only_shapes():  # which have no values
                importance = [1.0] * len(costs.names)
            else:
                importance = [float(found.get(name, 0.0)) for name in costs.names]
            chosen = choose(costs, importance, c.cost_ratio, c.solver, c.resolution)
        names = [costs.names[k] for k in chosen]
        whole = costs.forward + costs.backward
        state.update(
            selected=names, since=0, counted={}, tensors=len(costs.names),
            selections=state["selections"] + 1,
            predicted=state["predicted"] + (costs.forward + costs.predicted(chosen)) / whole,
        )  # fmt: skip
        for name in costs.names:  # all from the first selection on: what is kept does not grow
            state["times"][name] = state["times"].get(name, 0) + (name in names)
        self._ground(names)

    def _ground(self, names: list[str]) -> None:
        """Train these alone: the others have no gradient, and no optimizer moves them."""
        chosen = set(names)
        for name, parameter in self._trained.items():
            parameter.requires_grad_(name in chosen)
            if name not in chosen:
                parameter.grad = None


def choose(
    costs: TensorCosts,
    importance: list[float],
    ratio: float,
    solver: Solver = "exact",
    resolution: int = 1000,
) -> list[int]:
    """Indices into ``costs.names`` of what to train at ``ratio`` of a step's costs, ascending.

    Costs are rounded up to ``resolution`` units, so that the budget is kept. Unsupported where no
    tensor fits. Where none has positive importance, the one of the greatest that fits.
    """
    share = backward_share(ratio, costs.forward, costs.backward)
    unit = costs.backward / resolution
    dw, before = quantised(costs.dw, unit), quantised(costs.before, unit)
    # All of it, though rounded up, where all of it may be trained
    limit = int(share * resolution) if ratio < 1 else sum(dw) + before[-1]
    chosen = SOLVERS[solver](importance, dw, before, limit)
    if chosen:
        return chosen
    fits = [k for k in range(len(dw)) if before[k] + dw[k] <= limit]
    if not fits:
        least = min(b + d for b, d in zip(before, dw, strict=True)) * unit
        floor = (costs.forward + least) / (costs.forward + costs.backward)
        raise Unsupported(
            f"cost_ratio {ratio:g}: no tensor fits; the least that trains one is {floor:.3f}"
        )
    return [max(fits, key=lambda k: importance[k])]


def _shape(x: Inputs) -> str:
    return str([tuple(v.shape) for v in x.values()] if isinstance(x, dict) else tuple(x.shape))


def _device(name: str) -> ModelledDevice | None:
    if name == "none":
        return None
    device = load_device(name)
    if not isinstance(device, ModelledDevice):
        raise BenchError(f"cost_device {name}: it is measured; name a modelled one")
    return device


def details_of(state: dict[str, Any], config: Any) -> dict[str, Any]:
    """For a record: selections, and how often each tensor was in one.

    ``asked`` and ``predicted``: ratio of a step's costs, the mean over the selections.
    """
    n = state["selections"]
    return {
        "asked": config.cost_ratio, "cost": config.cost,
        "selections": n, "tensors": state["tensors"],
        "predicted": state["predicted"] / n if n else None, "times_selected": state["times"],
    }  # fmt: skip
