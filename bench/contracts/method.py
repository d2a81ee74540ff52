"""The contract of an adaptation method."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pydantic

if TYPE_CHECKING:
    from torch import Tensor

    from bench.contracts.data import DomainView, Inputs
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import ShiftedSource
    from bench.records.cell import Cell
    from bench.records.record import Amount
    from bench.run.window import Window

Need = Literal["source_data", "target_labels", "replay_memory"]
Provenance = Literal["published", "group-harness", "chosen-here"]
Shift = Literal["domain", "class"]
Protocol = Literal["periodic", "online"]


class MethodConfig(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of a method's hyperparameters: typed, bounded, part of the run's identity."""


def tunable(
    default: float,
    low: float,
    high: float,
    *,
    unit: str = "1",
    log: bool = False,
    ge: float | None = None,
    le: float | None = None,
) -> Any:
    """A hyperparameter that ``bench tune`` searches from ``low`` to ``high``, both included.

    Parameters
    ----------
    default : the paper's value, used with ``--untuned``
    unit : of the value; "1" for a pure number
    log : search on a logarithmic scale
    ge, le : bounds of what is accepted at all; default: the bounds of the search
    """
    return pydantic.Field(
        default,
        ge=low if ge is None else ge,
        le=high if le is None else le,
        json_schema_extra={"search": [low, high], "log": log, "unit": unit},
    )


def choice(default: str, *others: str) -> Any:
    """A setting of a few names, of which ``bench tune`` chooses one.

    The field's type says what is accepted, which may be more than what is searched::

        optimizer: Literal["sgd", "adam", "adamw"] = choice("sgd", "adamw")

    ``default`` is the published one; it is among what is searched.
    """
    if not others or len({default, *others}) <= len(others):
        raise ValueError(f"choice({default!r}, ...) needs at least two different names")
    return pydantic.Field(default, json_schema_extra={"choices": [default, *others]})


@dataclass(frozen=True)
class Searched:
    """One number of a search space, with inclusive bounds; ``log``: on a logarithmic scale."""

    name: str
    low: float
    high: float
    log: bool
    integer: bool

    def holds(self, value: Any) -> bool:
        """Whether a value lies within the search."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class SearchedChoice:
    """One name of a search space: one of ``values``."""

    name: str
    values: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether a value is among those that are searched."""
        return value in self.values


def search_space(config: type[MethodConfig]) -> Iterator[Searched | SearchedChoice]:
    """The fields of a method's settings that were made with `tunable` or `choice`."""
    for name, field in config.model_fields.items():
        extra: Any = field.json_schema_extra
        if not isinstance(extra, dict):
            continue
        if "search" in extra:
            low, high = extra["search"]
            yield Searched(name, low, high, extra["log"], field.annotation is int)
        elif "choices" in extra:
            yield SearchedChoice(name, tuple(extra["choices"]))


_ONLY_SHAPES: ContextVar[bool] = ContextVar("only_shapes", default=False)


def only_shapes() -> bool:
    """Whether a method is made to be counted, on tensors without values (``bench fit``).

    Then what an offline stage trains may stay as it begins: its shapes are all that matters.
    """
    return _ONLY_SHAPES.get()


@contextmanager
def counting_shapes() -> Iterator[None]:
    """Inside, `only_shapes` is true."""
    token = _ONLY_SHAPES.set(True)
    try:
        yield
    finally:
        _ONLY_SHAPES.reset(token)


class Method(ABC):
    """Adapts a model to a stream of domains on a device.

    ``prepare`` is called once, then ``adapt`` for each domain, and ``predict`` at any time. A
    subclass sets ``self.model`` in ``prepare`` (the default does) and usually overrides ``adapt``
    alone.

    Class attributes (literals, so that ``bench list`` reads them without importing):

    family : "reference", "UDA" (unsupervised domain adaptation), "CL" (continual
        learning) or "PEFT" (parameter-efficient fine-tuning)
    tasks : tasks it can run on
    shifts : what may change along the stream: "domain" (the inputs), "class" (new classes come)
    protocols : "periodic" (``adapt`` gets a whole domain), "online" (``adapt`` gets one batch)
    needs : "source_data" (kept on the device), "target_labels", "replay_memory"
    provenance : "published" (one of EdgeTA's baselines by its paper or code),
        "group-harness" (from that group's own harness) or "chosen-here"
    paper : authors, title, venue, year
    equation : what one update minimises or does, in one line of plain mathematics
    makes_own_model : gets the full model under every variant, as it makes its own small one
    uses_device_clock : it reads `Window.spent_s` or `Window.time_slice`: each device gets a run of
        its own
    conformance_config : settings for ``bench check``, where the offline work is long
    conformance_on : what ``bench check`` runs it on, where that is not the embedded stream and
        model: ``{"stream": {"name": ..., settings}, "model": {"name": ..., settings}}``
    preload : modules that are slow to import, loaded once for all runs that need them
    search_from : a method whose tuned settings ``bench tune`` tries second here, after the
        defaults, as far as both have them; for a method that is that one and a penalty more
    registered_name : the name it was registered by; `register` sets it
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    family: ClassVar[str] = "UDA"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    shifts: ClassVar[tuple[Shift, ...]] = ("domain",)
    protocols: ClassVar[tuple[str, ...]] = ("periodic", "online")
    needs: ClassVar[tuple[Need, ...]] = ()
    provenance: ClassVar[Provenance] = "chosen-here"
    paper: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    makes_own_model: ClassVar[bool] = False
    uses_device_clock: ClassVar[bool] = False
    conformance_config: ClassVar[dict[str, Any]] = {}
    conformance_on: ClassVar[dict[str, Any]] = {}
    preload: ClassVar[tuple[str, ...]] = ()
    search_from: ClassVar[str] = ""
    registered_name: ClassVar[str] = ""

    model: FoundationModel
    shifted_source: ShiftedSource | None = None
    """Labelled source data under other shifts than the stream's, for `prepare`."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def skip(cls, cell: Cell) -> str | None:
        """Why this method does not apply to ``cell``, or None. The reason is recorded."""
        return None

    @classmethod
    def offline_settings(cls, config: Any) -> Mapping[str, Any] | None:
        """The settings that shape what ``prepare`` makes and keeps in the cache; None: nothing.

        Where there are some, ``prepare`` is called once for each of their values before the runs,
        outside their time limit; what it keeps must not depend on the seed, and draws from the
        ``draw`` of the source view.
        """
        return None

    def uses_shifted_source(self) -> bool:
        """Whether ``prepare`` reads ``shifted_source``, which is else None. Default: no."""
        return False

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        """Offline work before deployment; it costs the device nothing.

        ``model`` is trained on the source and belongs to this method. ``source`` has labels; it
        is closed after this call unless the method declares that it needs ``source_data``. Its
        ``draw`` is the seed of work that is cached (`offline_settings`): a suite with several draws
        of the source model has as many of the offline stage.
        """
        self.model = model

    def adapt(self, domain: DomainView, window: Window) -> None:
        """Adapt to ``domain`` inside ``window``; every step is charged. Default: nothing."""

    def predict(self, x: Inputs) -> Tensor:
        """Task outputs for inputs of n samples; called without gradients. Default: the model."""
        self.model.train(False)
        return self.model(x)

    def details(self) -> dict[str, Any]:
        """What a record tells of the run beside its results, as JSON values; default: nothing.

        Asked at the run's end. Under ``notes``: sentences for readers of tables, of what happened
        in this run and changes how its numbers are to be read.
        """
        return {}

    def further_costs(self, device: Any) -> Mapping[str, Amount]:
        """Costs of the run on a device that the method knows besides, by name; default: none.

        ``device``: a `bench.costs.tracker.DeviceCosts`, with what the run was charged. Asked at the
        run's end, once for each device; recorded beside the others.
        """
        return {}

    def curves(self) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Points (step, value) of what ``prepare`` trained, by name, for TensorBoard.

        They are kept with what is cached, so that they are the same whether or not it was trained
        in this run. Default: none.
        """
        return {}

    def stored(self) -> Any:
        """What is in the device's memory between steps; default: all that the object holds.

        Walked for tensors, modules and optimizers; data views count as storage, not as memory.
        """
        return vars(self)

    def state(self) -> dict[str, Any]:
        """What the method has learned so far, for ``torch.save``; default: all its attributes."""
        from bench.contracts.state import capture

        return capture(vars(self))

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state` of this method with these settings, after ``prepare``."""
        from bench.contracts.state import restore

        restore(vars(self), state)


FAMILIES = ("reference", "UDA", "CL", "PEFT")
