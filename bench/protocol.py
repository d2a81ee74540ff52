"""Protocols: in which order a method predicts and adapts, and who sees which labels."""

from __future__ import annotations

import copy
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
from bench.errors import BenchError, Unsupported
from bench.scenario import Domain, Scenario, Split
from bench.window import Logger, Window

if TYPE_CHECKING:
    from bench.method import Method
    from bench.model import FoundationModel


class ProtocolConfig(pydantic.BaseModel, extra="forbid", frozen=True):
    """What all methods of a suite have in common; part of the identity.

    window_s : device seconds that a method may adapt to one domain
    batch_size : samples in a batch, in adaptation and in prediction
    samples : adaptation samples of a domain, the first ones of its split in the seed's order
    reset : ``never`` (the model goes on from domain to domain) or ``domain`` (back to the
        prepared model before each)
    """

    name: Literal["periodic"] = "periodic"
    window_s: float = pydantic.Field(60.0, gt=0, allow_inf_nan=False)
    batch_size: int = pydantic.Field(64, ge=1)
    samples: int | None = pydantic.Field(None, ge=1)
    reset: Literal["never", "domain"] = "never"


@dataclass
class Stage:
    """What happened on one domain: accuracies, and each device's charge and window."""

    name: str
    before: float
    after: float
    final: float
    adaptation_samples: int
    test_samples: int
    charges: dict[str, Charge]
    window_closed: bool


@dataclass
class Stream:
    """The outcome of a protocol."""

    source_before: float
    source_after: float
    stages: list[Stage]


def target_view(domain: Domain, protocol: ProtocolConfig, labelled: bool, seed: int) -> DomainView:
    """What a method receives of a target domain: no test split, and labels only if ``labelled``."""
    generator = torch.Generator()
    generator.manual_seed(zlib.crc32(f"{seed}/{domain.name}/batches".encode()))
    n = len(domain.adaptation)
    chosen = torch.randperm(n, generator=generator)[: protocol.samples or n]
    x = take(domain.adaptation.x, chosen)
    y = domain.adaptation.y[chosen] if labelled else None
    return DomainView(domain.name, x, y, protocol.batch_size, generator)


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
    before = _versions(method)
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
    if _versions(method) != before:
        raise BenchError(
            f"predict of {type(method).__name__} changes the method's state; this protocol "
            "evaluates what adapt has learned, so predict must only read"
        )
    return hits / len(split)


def _versions(method: Method) -> list[tuple[int, int]]:
    """Identity and count of in-place changes of every tensor that the method holds."""
    tensors = live_tensors([vars(method), method.stored()])
    return [(id(t), t._version) for t in tensors if not t.is_inference()]


def run_periodic(
    method: Method,
    scenario: Scenario,
    protocol: ProtocolConfig,
    meter: Meter,
    labelled: bool,
    seed: int,
    correct: Scorer,
    logger: Logger | None = None,
) -> Stream:
    """On each new domain: evaluate, adapt within the window, evaluate; at the end, evaluate all.

    ``method`` is prepared. Adaptation sees the adaptation split, evaluation the test split.
    """
    batch = protocol.batch_size
    source_test = scenario.source().test
    names = scenario.domain_names()
    if not names:
        raise BenchError(f"scenario {type(scenario).__name__} has no target domain; name some")
    start = _snapshot(method) if protocol.reset == "domain" else None
    source_before = evaluate(method, source_test, batch, correct, meter)
    stages: list[Stage] = []
    tests: list[Split] = []
    for position, name in enumerate(names):
        domain = scenario.domain(name)
        tests.append(domain.test)
        if start is not None:
            vars(method).clear()
            vars(method).update(copy.deepcopy(start))
        before = evaluate(method, domain.test, batch, correct)
        view = target_view(domain, protocol, labelled, seed)
        with Window(meter, protocol.window_s, logger, method.model.module) as window:
            method.adapt(view, window)
            exhausted = window.closed
        samples = len(view)
        view.close(f"{name} is over: keep samples of it as replay memory, not the view")
        after = evaluate(method, domain.test, batch, correct)
        stages.append(
            Stage(
                name=name,
                before=before,
                after=after,
                final=after,
                adaptation_samples=samples,
                test_samples=len(domain.test),
                charges={bill.device: bill.window for bill in meter.bills},
                window_closed=exhausted,
            )
        )
        if logger is not None:
            logger("accuracy/before", before, position)
            logger("accuracy/after", after, position)
    meter.finish()
    if protocol.reset == "never":
        for stage, test in zip(stages, tests, strict=True):
            stage.final = evaluate(method, test, batch, correct)
    # Priced again: a method may have grown what it predicts with.
    source_after = evaluate(method, source_test, batch, correct, meter)
    return Stream(source_before, source_after, stages)


def _snapshot(method: Method) -> dict[str, Any]:
    try:
        return copy.deepcopy(vars(method))
    except (TypeError, RuntimeError) as error:
        raise Unsupported(
            f"reset: domain needs a method whose state can be copied; {type(method).__name__} "
            f"holds something that cannot: {error}"
        ) from error
