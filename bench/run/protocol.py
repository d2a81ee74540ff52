"""Protocols: in which order a method predicts and adapts, and who sees which labels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.contracts.data import DomainView, take
from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain, Split, Stream
from bench.costs.tracker import CostTracker, WindowCosts
from bench.errors import BenchError
from bench.run.evaluator import Scorer, evaluate
from bench.run.stream_clock import BlockingStream, RealTimeStream, set_back, snapshot
from bench.run.window import Logger, Window

if TYPE_CHECKING:
    from bench.contracts.method import Method


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
    charges: dict[str, WindowCosts]
    window_closed: bool


@dataclass
class StreamResult:
    """The outcome of a protocol; ``matrix`` as in `bench.records.record.Results`."""

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


def run_stream(
    method: Method,
    stream: Stream,
    protocol: ProtocolConfig,
    tracker: CostTracker,
    labelled: bool,
    seed: int,
    correct: Scorer,
    logger: Logger | None = None,
) -> StreamResult:
    """Take a prepared method through the target domains in their order.

    On each: evaluate on its test split, adapt within the window, evaluate again; at the end
    evaluate all. ``periodic``: the method adapts on the domain's adaptation samples as it likes.
    ``online``: they arrive batch by batch; each batch is predicted and scored, then given to the
    method, once. When the window has closed the method goes on predicting. ``online-timed``: they
    arrive at a pace that does not depend on the method, see `RealTimeStream`; a domain begins when
    its first batch arrives and ends when that of the next would, and each evaluation is of the last
    model that is ready then. An adaptation that outlasts its domain goes on in the next one, unless
    that begins with a reset, and is charged to the domain it began in.
    """
    batch = protocol.batch_size
    source_test = stream.source().test
    names = stream.domain_names()
    if not names:
        raise BenchError(f"stream {type(stream).__name__} has no target domain; name some")
    start = snapshot(method, "reset: domain") if protocol.reset == "domain" else None
    source_before = evaluate(method, source_test, batch, correct, tracker)
    pace = _pace(method, tracker, protocol)
    if protocol.name != "periodic":
        tracker.mark_unavailable(
            energy=f"under {protocol.name} predictions and adaptation alternate inside a window, "
            "whose energy a tracker cannot part"
        )
    if protocol.timed or start is not None:
        tracker.mark_unavailable(
            memory="this process also holds copies of the method, which the protocol makes to set "
            "it back or to predict with meanwhile"
        )
    matrix: list[list[float]] = []
    every = [stream.domain(name).test for name in names] if protocol.evaluate_all else []

    def accuracy(split: Split, tracker: CostTracker | None = None) -> float:
        with pace.ready():
            return evaluate(method, split, batch, correct, tracker)

    def evaluate_all() -> None:
        if protocol.evaluate_all:
            matrix.append([accuracy(test) for test in (source_test, *every)])

    evaluate_all()
    stages: list[Stage] = []
    tests: list[Split] = []
    for position, name in enumerate(names):
        domain = stream.domain(name)
        tests.append(domain.test)
        if start is not None:
            set_back(method, start)
            pace.restart()
        before = accuracy(domain.test)
        with Window(tracker, protocol.budget_s, logger, method.model.module) as window:
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
                charges={device.name: device.window for device in tracker.devices},
                window_closed=exhausted,
            )
        )
        evaluate_all()
        if logger is not None:
            logger("accuracy/before", before, position)
            logger("accuracy/after", after, position)
    tracker.finish()
    if protocol.reset == "never":
        for stage, test in zip(stages, tests, strict=True):
            stage.final = accuracy(test)
    # Priced again: a method may have grown what it predicts with.
    source_after = accuracy(source_test, tracker)
    return StreamResult(source_before, source_after, len(source_test), stages, matrix or None)


def _pace(method: Method, tracker: CostTracker, protocol: ProtocolConfig) -> BlockingStream:
    if protocol.interval_s is None:
        return BlockingStream(method, tracker)
    return RealTimeStream(method, tracker, protocol.interval_s, protocol.batch_size)


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
    pace: BlockingStream,
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
