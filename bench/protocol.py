"""Protocols: in which order a method predicts and adapts, and who sees which labels."""

from __future__ import annotations

import copy
import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import torch

from bench.batch import DomainView, take
from bench.device.bill import Charge, Meter
from bench.errors import BenchError, Unsupported
from bench.scenario import Domain, Scenario, Split
from bench.window import Logger, Window

if TYPE_CHECKING:
    from bench.method import Method


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


def evaluate(method: Method, split: Split, batch_size: int, meter: Meter | None = None) -> float:
    """Accuracy of ``method`` on a split.

    With a meter, the last full batch (everything is warm by then) sets the price of inference.
    """
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
            hits += float(method.model.correct(outputs, split.y[chosen]).sum())
    return hits / len(split)


def run_periodic(
    method: Method,
    scenario: Scenario,
    protocol: ProtocolConfig,
    meter: Meter,
    labelled: bool,
    seed: int,
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
    source_before = evaluate(method, source_test, batch, meter)
    stages: list[Stage] = []
    tests: list[Split] = []
    for position, name in enumerate(names):
        domain = scenario.domain(name)
        tests.append(domain.test)
        if start is not None:
            vars(method).clear()
            vars(method).update(copy.deepcopy(start))
        before = evaluate(method, domain.test, batch)
        view = target_view(domain, protocol, labelled, seed)
        with Window(meter, protocol.window_s, logger) as window:
            method.adapt(view, window)
            exhausted = window.closed
        after = evaluate(method, domain.test, batch)
        stages.append(
            Stage(
                name=name,
                before=before,
                after=after,
                final=after,
                adaptation_samples=len(view),
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
            stage.final = evaluate(method, test, batch)
    return Stream(source_before, evaluate(method, source_test, batch), stages)


def _snapshot(method: Method) -> dict[str, Any]:
    try:
        return copy.deepcopy(vars(method))
    except (TypeError, RuntimeError) as error:
        raise Unsupported(
            f"reset: domain needs a method whose state can be copied; {type(method).__name__} "
            f"holds something that cannot: {error}"
        ) from error
