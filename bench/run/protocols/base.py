"""The contract of a protocol, and the part of a run that all protocols share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic

from bench import registry
from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain, Split, Stream
from bench.costs.tracker import CostTracker, WindowCosts
from bench.errors import BenchError
from bench.records.record import DomainScores, StreamScores
from bench.run.evaluator import Scorer, evaluate
from bench.run.stream_clock import BlockingStream, restore, snapshot
from bench.run.window import Logger, Window

if TYPE_CHECKING:
    from bench.contracts.method import Method

COPIES = (
    "the process also holds copies of the method, which the protocol makes to reset it or to "
    "predict while it adapts"
)


@dataclass(frozen=True)
class Deployment:
    """A prepared method and what it runs with.

    ``correct`` scores outputs, see `bench.run.evaluator`; ``labelled``: the method sees the labels
    of the adaptation splits; ``seed``: of the order in which samples arrive; ``logger`` receives
    the accuracies and what the method logs.
    """

    method: Method
    stream: Stream
    tracker: CostTracker
    correct: Scorer
    labelled: bool
    seed: int
    logger: Logger | None = None


class Stage(DomainScores):
    """The scores of one domain, and by device what adapting to it was charged."""

    charges: dict[str, WindowCosts]


class StreamResult(StreamScores):
    """The scores of a stream, with its domains in order."""

    stages: list[Stage]


class WindowedConfig(ProtocolConfig):
    """The settings of a protocol whose stream waits, so that a window limits adaptation.

    Attributes
    ----------
    window_s : device seconds that a method may adapt to one domain
    """

    window_s: float = pydantic.Field(60.0, gt=0, allow_inf_nan=False)

    @property
    def budget_s(self) -> float:
        return self.window_s


def refused(why: str) -> pydantic.BeforeValidator:
    """For a setting of other protocols that this one does not have; ``why`` is the error."""

    def refuse(_: Any) -> None:
        raise ValueError(why)

    return pydantic.BeforeValidator(refuse)


class Protocol(ABC):
    """Takes a prepared method through the target domains of a stream.

    On each domain: evaluate on its test split, adapt within a window, evaluate again; at the end
    evaluate on all. A subclass is registered as ``@register("protocol", NAME)`` and says how a
    method adapts to one domain.

    Attributes
    ----------
    Config : the class of its settings
    timed, method_protocol : literals, see `bench.records.protocol_facts.ProtocolFacts`
    energy_unavailable : why the energy of adaptation cannot be measured, if it cannot
    memory_unavailable : why the peak memory of the method cannot be measured, if it cannot
    conformance_config : settings without a default, for `bench check`
    """

    Config: ClassVar[type[ProtocolConfig]]
    timed: ClassVar[bool] = False
    method_protocol: ClassVar[str] = "periodic"
    energy_unavailable: ClassVar[str] = ""
    memory_unavailable: ClassVar[str] = ""
    conformance_config: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: Any, deployment: Deployment) -> None:
        self.config = config
        self.deployment = deployment
        self.method = deployment.method
        self.tracker = deployment.tracker
        self.clock: BlockingStream

    @abstractmethod
    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        """Let the method adapt to ``domain``; fill in ``adaptation_samples`` of ``scores``."""

    def make_clock(self) -> BlockingStream:
        """The clock of the stream; called once the price of inference is known."""
        return BlockingStream(self.method, self.tracker)

    def run(self) -> StreamResult:
        """Take the method through the stream, from its first evaluation to its last.

        Raises BenchError if there is no target domain or the method breaks a rule; Unsupported and
        DeviceOutOfMemory if no device of the run can do it.
        """
        stream = self.deployment.stream
        source = stream.source().test
        names = stream.domain_names()
        if not names:
            raise BenchError(f"stream {type(stream).__name__} has no target domain; name some")
        start = snapshot(self.method, "reset: domain") if self.config.reset == "domain" else None
        source_before = self._evaluate(source, self.tracker)
        self.clock = self.make_clock()
        self.tracker.mark_unavailable(
            energy=self.energy_unavailable,
            memory=self.memory_unavailable or (COPIES if start is not None else ""),
        )
        evaluate_all = self._matrix_rows(source, names)
        matrix = [*evaluate_all()]
        stages: list[Stage] = []
        tests: list[Split] = []
        for position, name in enumerate(names):
            domain = stream.domain(name)
            tests.append(domain.test)
            if start is not None:
                restore(self.method, start)
                self.clock.restart()
            stages.append(self._stage(domain))
            matrix += evaluate_all()
            self._log(stages[-1], position)
        self.tracker.finish()
        if self.config.reset == "never":
            for stage, test in zip(stages, tests, strict=True):
                stage.final = self.accuracy(test)
        return StreamResult(
            source_before=source_before,
            # Priced again: a method may have grown what it predicts with.
            source_after=self.accuracy(source, self.tracker),
            source_samples=len(source),
            matrix=matrix or None,
            stages=stages,
        )

    def accuracy(self, split: Split, tracker: CostTracker | None = None) -> float:
        """Accuracy in [0, 1] of the model that serves predictions now."""
        with self.clock.serving_model():
            return self._evaluate(split, tracker)

    def _evaluate(self, split: Split, tracker: CostTracker | None) -> float:
        return evaluate(
            self.method, split, self.config.batch_size, self.deployment.correct, tracker
        )

    def _matrix_rows(self, source: Split, names: Any) -> Callable[[], list[list[float]]]:
        """Gives the matrix's next row, or none where the protocol does not evaluate all."""
        if not self.config.evaluate_all:
            return list
        every = [source, *(self.deployment.stream.domain(name).test for name in names)]
        return lambda: [[self.accuracy(test) for test in every]]

    def _stage(self, domain: Domain) -> Stage:
        before = self.accuracy(domain.test)
        accuracies = dict.fromkeys(("before", "after", "final"), before)
        counts = {"adaptation_samples": 0, "test_samples": len(domain.test)}
        stage = Stage(name=domain.name, **accuracies, **counts, window_closed=False, charges={})
        logger, module = self.deployment.logger, self.method.model.module
        with Window(self.tracker, self.config.budget_s, logger, module) as window:
            self.adapt(domain, window, stage)
            stage.window_closed = window.closed
        stage.after = stage.final = self.accuracy(domain.test)
        stage.charges = {device.name: device.window for device in self.tracker.devices}
        return stage

    def _log(self, stage: Stage, position: int) -> None:
        if (logger := self.deployment.logger) is not None:
            logger("accuracy/before", stage.before, position)
            logger("accuracy/after", stage.after, position)


def run_stream(config: ProtocolConfig, deployment: Deployment) -> StreamResult:
    """Run a deployment under the protocol that ``config`` names; see `Protocol.run`."""
    protocol: Protocol = registry.load("protocol", config.name)(config, deployment)
    return protocol.run()
