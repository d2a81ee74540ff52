"""Protocols: in which order a method predicts and adapts, and who sees which labels."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import torch
from torch import Tensor

from bench.batch import DomainView, take
from bench.device.bill import Charge, Meter
from bench.device.trace import live_tensors
from bench.errors import BenchError
from bench.pace import Pace, RealTime, set_back, snapshot
from bench.scenario import Domain, Scenario, Split
from bench.window import Logger, Window

if TYPE_CHECKING:
    from bench.method import Method
    from bench.model import FoundationModel


class ProtocolConfig(pydantic.BaseModel, extra="forbid", frozen=True):
    """What all methods of a suite have in common; part of the identity.

    name : ``periodic`` (adapt to a whole domain at once), ``online`` (predict, then adapt, batch by
        batch) or ``online-timed`` (so as well, but the stream does not wait: `bench.pace.RealTime`)
    window_s : device seconds that a method may adapt to one domain; not under ``online-timed``,
        where the stream limits it
    interval_s : seconds from one batch of the stream to the next; ``online-timed`` alone
    batch_size : samples in a batch, in adaptation and in prediction
    samples : adaptation samples of a domain, the first ones of its split in the seed's order
    reset : ``never`` (the model goes on from domain to domain) or ``domain`` (back to the
        prepared model before each)
    evaluate_all : before the stream and after each domain, evaluate on the source and on every
        domain, for forgetting and transfer; quadratic in the number of domains
    """

    name: Literal["periodic", "online", "online-timed"] = "periodic"
    window_s: float = pydantic.Field(60.0, gt=0, allow_inf_nan=False)
    interval_s: float | None = pydantic.Field(
        None, gt=0, allow_inf_nan=False, validate_default=True
    )
    batch_size: int = pydantic.Field(64, ge=1)
    samples: int | None = pydantic.Field(None, ge=1)
    reset: Literal["never", "domain"] = "never"
    evaluate_all: bool = False

    @property
    def timed(self) -> bool:
        """Whether the stream does not wait for the method."""
        return self.name == "online-timed"

    @property
    def budget_s(self) -> float:
        """Device seconds of a domain's window."""
        return math.inf if self.timed else self.window_s

    @pydantic.field_validator("window_s")
    @classmethod
    def _no_window(cls, value: float, info: pydantic.ValidationInfo) -> float:
        if info.data.get("name") == "online-timed":
            raise ValueError("online-timed has no window, the stream limits adaptation; remove it")
        return value

    @pydantic.field_validator("interval_s")
    @classmethod
    def _interval(cls, value: float | None, info: pydantic.ValidationInfo) -> float | None:
        name = info.data.get("name")
        if name == "online-timed" and value is None:
            raise ValueError("online-timed needs the seconds from one batch to the next, as 0.5")
        if name in ("periodic", "online") and value is not None:
            raise ValueError(f"under {name} the stream waits; remove it, or take online-timed")
        return value

    @pydantic.model_serializer(mode="wrap")
    def _content(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        # As in cells made before there was anything else: their identities hold this.
        content.pop("window_s" if self.timed else "interval_s", None)
        return content


@dataclass
class Stage:
    """What happened on one domain: accuracies, and each device's charge and window.

    ``online``: accuracy on the stream itself, each batch predicted before it is adapted to;
    ``adapted``: share of its batches that were adapted on, under ``online-timed``.
    """

    name: str
    before: float
    after: float
    final: float
    online: float | None
    adapted: float | None
    adaptation_samples: int
    test_samples: int
    charges: dict[str, Charge]
    window_closed: bool


@dataclass
class Stream:
    """The outcome of a protocol; ``matrix`` as in `bench.record.Results`."""

    source_before: float
    source_after: float
    source_samples: int
    stages: list[Stage]
    matrix: list[list[float]] | None


def arrivals(domain: Domain, protocol: ProtocolConfig, seed: int) -> tuple[Split, torch.Generator]:
    """The samples that arrive of a domain, in the seed's order, and the generator that drew it."""
    generator = torch.Generator()
    generator.manual_seed(zlib.crc32(f"{seed}/{domain.name}/batches".encode()))
    n = len(domain.adaptation)
    chosen = torch.randperm(n, generator=generator)[: protocol.samples or n]
    return Split(take(domain.adaptation.x, chosen), domain.adaptation.y[chosen]), generator


def target_view(domain: Domain, protocol: ProtocolConfig, labelled: bool, seed: int) -> DomainView:
    """What a method receives of a target domain: no test split, and labels only if ``labelled``."""
    arrived, generator = arrivals(domain, protocol, seed)
    y = arrived.y if labelled else None
    return DomainView(domain.name, arrived.x, y, protocol.batch_size, generator)


Scorer = Callable[[Tensor, Tensor], Tensor]
"""(outputs, labels) -> the metric of each sample; labels pass through nothing else."""


def make_scorer(model: FoundationModel) -> Scorer:
    """The model's task metric, taken before any method has the model in its hands."""
    return MethodType(type(model).correct, copy.copy(model))


def evaluate(
    method: Method, split: Split, batch_size: int, correct: Scorer, meter: Meter | None = None
) -> float:
    """Accuracy of ``method`` on a split.

    With a meter, the last full batch (everything is warm by then) sets the price of inference.
    Raises BenchError if predicting changes the method's tensors (adapting on test data is
    not this protocol) or gives outputs for another number of samples.
    """
    held = _tensors(method)  # kept: a tensor that is gone may leave its identity to another
    before = _versions(held)
    batches = torch.arange(len(split)).split(batch_size)
    priced = max(len(split) // batch_size - 1, 0) if meter is not None else -1
    hits = 0.0
    with torch.no_grad():
        for i, chosen in enumerate(batches):
            x = take(split.x, chosen)
            if meter is not None and i == priced:
                outputs = meter.inference(len(chosen), partial(method.predict, x))
            else:
                outputs = method.predict(x)
            if len(outputs) != len(chosen):
                raise BenchError(
                    f"predict of {type(method).__name__} gave {len(outputs)} outputs for "
                    f"{len(chosen)} samples"
                )
            plain = outputs.detach().as_subclass(Tensor)
            hits += float(correct(plain, split.y[chosen]).sum())
    if _versions(_tensors(method)) != before:
        raise BenchError(
            f"predict of {type(method).__name__} changes the method's state; this protocol "
            "evaluates what adapt has learned, so predict must only read"
        )
    return hits / len(split)


def _tensors(method: Method) -> list[Tensor]:
    """Every tensor that the method holds and whose changes are counted."""
    tensors = live_tensors([vars(method), method.stored()])
    return [t for t in tensors if not t.is_inference()]


def _versions(tensors: list[Tensor]) -> list[tuple[int, int]]:
    """Identity and count of in-place changes of each."""
    return [(id(t), t._version) for t in tensors]


def run_stream(
    method: Method,
    scenario: Scenario,
    protocol: ProtocolConfig,
    meter: Meter,
    labelled: bool,
    seed: int,
    correct: Scorer,
    logger: Logger | None = None,
) -> Stream:
    """Take a prepared method through the target domains in their order.

    On each: evaluate on its test split, adapt within the window, evaluate again; at the end
    evaluate all. ``periodic``: the method adapts on the domain's adaptation samples as it likes.
    ``online``: they arrive batch by batch; each batch is predicted and scored, then given to the
    method, once. When the window has closed the method goes on predicting. ``online-timed``: they
    arrive at a pace that does not depend on the method, see `RealTime`; a domain begins when its
    first batch arrives and ends when that of the next would, and each evaluation is of the last
    model that is ready then. An adaptation that outlasts its domain goes on in the next one,
    unless that begins with a reset, and is charged to the domain it began in.
    """
    batch = protocol.batch_size
    source_test = scenario.source().test
    names = scenario.domain_names()
    if not names:
        raise BenchError(f"scenario {type(scenario).__name__} has no target domain; name some")
    start = snapshot(method, "reset: domain") if protocol.reset == "domain" else None
    source_before = evaluate(method, source_test, batch, correct, meter)
    pace = _pace(method, meter, protocol)
    if protocol.name != "periodic":
        meter.leave_out(
            energy=f"under {protocol.name} predictions and adaptation alternate inside a window, "
            "whose energy a meter cannot part"
        )
    if protocol.timed or start is not None:
        meter.leave_out(
            memory="this process also holds copies of the method, which the protocol makes to set "
            "it back or to predict with meanwhile"
        )
    matrix: list[list[float]] = []
    every = [scenario.domain(name).test for name in names] if protocol.evaluate_all else []

    def accuracy(split: Split, meter: Meter | None = None) -> float:
        with pace.ready():
            return evaluate(method, split, batch, correct, meter)

    def evaluate_all() -> None:
        if protocol.evaluate_all:
            matrix.append([accuracy(test) for test in (source_test, *every)])

    evaluate_all()
    stages: list[Stage] = []
    tests: list[Split] = []
    for position, name in enumerate(names):
        domain = scenario.domain(name)
        tests.append(domain.test)
        if start is not None:
            set_back(method, start)
            pace.restart()
        before = accuracy(domain.test)
        with Window(meter, protocol.budget_s, logger, method.model.module) as window:
            online: float | None = None
            adapted: float | None = None
            if protocol.name == "periodic":
                samples = _periodic(method, domain, protocol, window, labelled, seed)
            else:
                online, share, samples = _online(
                    method, domain, protocol, window, labelled, seed, correct, pace
                )
                adapted = share if protocol.timed else None
            exhausted = window.closed
        after = accuracy(domain.test)
        stages.append(
            Stage(
                name=name,
                before=before,
                after=after,
                final=after,
                online=online,
                adapted=adapted,
                adaptation_samples=samples,
                test_samples=len(domain.test),
                charges={bill.device: bill.window for bill in meter.bills},
                window_closed=exhausted,
            )
        )
        evaluate_all()
        if logger is not None:
            logger("accuracy/before", before, position)
            logger("accuracy/after", after, position)
    meter.finish()
    if protocol.reset == "never":
        for stage, test in zip(stages, tests, strict=True):
            stage.final = accuracy(test)
    # Priced again: a method may have grown what it predicts with.
    source_after = accuracy(source_test, meter)
    return Stream(source_before, source_after, len(source_test), stages, matrix or None)


def _pace(method: Method, meter: Meter, protocol: ProtocolConfig) -> Pace:
    if protocol.interval_s is None:
        return Pace(method, meter)
    return RealTime(method, meter, protocol.interval_s, protocol.batch_size)


def _periodic(
    method: Method,
    domain: Domain,
    protocol: ProtocolConfig,
    window: Window,
    labelled: bool,
    seed: int,
) -> int:
    """Adapt on a whole domain; the number of samples."""
    view = target_view(domain, protocol, labelled, seed)
    method.adapt(view, window)
    samples = len(view)
    view.close(f"{domain.name} is over: keep samples of it as replay memory, not the view")
    return samples


def _online(
    method: Method,
    domain: Domain,
    protocol: ProtocolConfig,
    window: Window,
    labelled: bool,
    seed: int,
    correct: Scorer,
    pace: Pace,
) -> tuple[float, float, int]:
    """Predict, then adapt, batch by batch.

    Accuracy over the stream, the share of batches that were adapted on, and the number of samples.
    """
    stream, generator = arrivals(domain, protocol, seed)
    batches = torch.arange(len(stream)).split(protocol.batch_size)
    hits, adapted = 0.0, 0
    for chosen in batches:
        arrived = Split(take(stream.x, chosen), stream.y[chosen])
        with pace.ready():
            hits += len(chosen) * evaluate(method, arrived, protocol.batch_size, correct)
        if pace.free and not window.closed:
            y = arrived.y if labelled else None
            view = DomainView(
                domain.name, arrived.x, y, protocol.batch_size, generator, single_pass=True
            )
            adapted += pace.adapt(view, window)
            view.close(
                f"this batch of {domain.name} is over: an online stream gives each batch once"
            )
        pace.advance()
    return hits / len(stream), adapted / len(batches), len(stream)
