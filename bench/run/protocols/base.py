"""The contract of a protocol, and the part of a run that all protocols share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pydantic

from bench import registry
from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain, Split
from bench.contracts.task import MetricFacts
from bench.costs.tracker import CostTracker, WindowCosts
from bench.records.record import DomainScores, Metric, StreamScores, further_field
from bench.run.evaluator import Evaluator, OnlineScore, Scorer, Scores
from bench.run.stream_clock import BlockingStream
from bench.run.validity import BuiltStream
from bench.run.window import Logger, Window
from bench.snapshots.snapshot import OutsideState, Snapshot

if TYPE_CHECKING:
    from bench.contracts.method import Method

COPIES = (
    "the process also holds copies of the method, which the protocol makes to reset it or to "
    "predict while it adapts"
)


@dataclass(frozen=True)
class Deployment:
    """A prepared method and what it runs with.

    ``labelled``: the method sees the labels of the adaptation splits; ``seed``: of the order in
    which samples arrive; ``scorer``: see `bench.run.evaluator.Evaluator`; ``logger`` receives the
    accuracies and what the method logs.
    """

    method: Method
    stream: BuiltStream
    tracker: CostTracker
    labelled: bool
    seed: int
    scorer: Scorer | None = None
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
        self.least_batch = self.method.model.least_batch
        self.evaluator = Evaluator(
            self.method,
            self.tracker,
            config.batch_size,
            deployment.stream.task,
            deployment.stream.classes,
            deployment.scorer,
            self.least_batch,
            config.generate,
        )
        self.clock: BlockingStream

    @abstractmethod
    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        """Let the method adapt to ``domain``; fill in ``adaptation_samples`` of ``scores``."""

    def make_clock(self) -> BlockingStream:
        """The clock of the stream; called once the price of inference is known."""
        return BlockingStream(self.method, self.tracker)

    def run(self) -> StreamResult:
        """Take the method through the stream, from its first evaluation to its last.

        Raises BenchError if the method breaks a rule;
        Unsupported and DeviceOutOfMemory if no device of the run can do it.
        """
        built = self.deployment.stream
        start, outside = self._copies()
        source_before = self._evaluate(built.source, priced=True)
        self.clock = self.make_clock()
        self.tracker.mark_unavailable(
            energy=self.energy_unavailable,
            memory=self.memory_unavailable or (COPIES if start is not None else ""),
        )
        matrix = self._matrix_row(built)
        stages: list[Stage] = []
        for position, domain in enumerate(built.domains):
            if start is not None:
                start.restore()
                self.clock.restart()
            stages.append(self._stage(domain))
            if outside is not None:
                outside.require_unchanged()
            matrix += self._matrix_row(built)
            self._log(stages[-1], position)
        self.tracker.finish()
        if self.config.reset == "never":
            for stage, domain in zip(stages, built.domains, strict=True):
                stage.final = self._tested_as(("final",), domain, stage)
        return StreamResult(
            metric=_recorded(built.task.metric),
            further_metrics=self._further_metrics(stages),
            source_before=source_before,
            # Priced again if it changed: a method may have grown what it predicts with.
            source_after=self._tested(built.source, priced=True),
            source_samples=len(built.source.test),
            matrix=matrix or None,
            stages=stages,
        )

    def _copies(self) -> tuple[Snapshot | None, OutsideState | None]:
        """The state to reset to, and what no copy reaches; None where no copy is needed."""
        resets = self.config.reset == "domain"
        if not (resets or self.timed):
            return None, None
        purpose = "reset: domain" if resets else self.config.name
        start = Snapshot(self.method, purpose) if resets else None
        if start is not None:
            start.require_independent()
        return start, OutsideState(self.method, purpose)

    def accuracy(self, split: Split, where: str = "samples of a stream") -> float:
        """The metric of the model that serves predictions now; ``where`` is for errors."""
        score = self.evaluator.online_score()
        self.score_batch(split, where, score)
        return score.value(where)

    def score_batch(self, split: Split, where: str, score: OnlineScore) -> None:
        """Predict a batch of a stream with the model that serves predictions now."""
        with self.clock.serving_model():
            self.evaluator.score_batch(split, where, score)

    def _tested(self, domain: Domain, priced: bool = False) -> float:
        """Accuracy on a test split, which is not predicted again if nothing changed."""
        with self.clock.serving_model():
            return self._evaluate(domain, priced)

    def _tested_as(self, fields: Iterable[str], domain: Domain, stage: Stage) -> float:
        """As `_tested`; the further metrics are recorded in ``stage``, as ``fields`` of each."""
        with self.clock.serving_model():
            scores = self._scores(domain, False)
        for metric in self.deployment.stream.task.further_metrics:
            for when in fields:
                stage.measure(further_field(metric.name, when), scores.further.get(metric.name))
        return scores.value

    def _evaluate(self, domain: Domain, priced: bool) -> float:
        return self._scores(domain, priced).value

    def _scores(self, domain: Domain, priced: bool) -> Scores:
        where = f"the test split of {domain.name!r}"
        return self.evaluator.scores(domain.test, where, priced)

    def _further_metrics(self, stages: Sequence[Stage]) -> list[Metric]:
        """Those of the task that some domain has."""
        task = self.deployment.stream.task
        return [
            _recorded(metric)
            for metric in task.further_metrics
            if any(stage.further(metric.name, "after") is not None for stage in stages)
        ]

    def _matrix_row(self, built: BuiltStream) -> list[list[float]]:
        """The matrix's next row, or none where the protocol does not evaluate all."""
        if not self.config.evaluate_all:
            return []
        return [[self._tested(domain) for domain in (built.source, *built.domains)]]

    def _stage(self, domain: Domain) -> Stage:
        accuracies = dict.fromkeys(("before", "after", "final"), 0.0)
        counts = {"adaptation_samples": 0, "test_samples": len(domain.test)}
        stage = Stage(name=domain.name, **accuracies, **counts, window_closed=False, charges={})
        stage.before = self._tested_as(("before",), domain, stage)
        logger, budget_s = self.deployment.logger, self.config.budget_s
        with Window(self.tracker, budget_s, logger, lambda: self.method.model.module) as window:
            self.adapt(domain, window, stage)
            stage.window_closed = window.closed
        stage.after = stage.final = self._tested_as(("after", "final"), domain, stage)
        stage.charges = {device.name: device.window for device in self.tracker.devices}
        return stage

    def _log(self, stage: Stage, position: int) -> None:
        if (logger := self.deployment.logger) is not None:
            logger("accuracy/before", stage.before, position)
            logger("accuracy/after", stage.after, position)


def _recorded(metric: MetricFacts) -> Metric:
    facts = {n: v for n, v in asdict(metric).items() if n in Metric.model_fields}
    return Metric(**facts | {"highest": None if math.isinf(metric.highest) else metric.highest})


def run_stream(config: ProtocolConfig, deployment: Deployment) -> StreamResult:
    """Run a deployment under the protocol that ``config`` names; see `Protocol.run`."""
    protocol: Protocol = registry.load("protocol", config.name)(config, deployment)
    return protocol.run()
