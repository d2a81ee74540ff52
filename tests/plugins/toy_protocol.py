"""A protocol in one file: ``protocol: {name: repeated, visits: 3, ...}``, with ``--plugin``."""

from __future__ import annotations

import pydantic

from bench import register
from bench.contracts.stream import Domain
from bench.records.record import DomainScores
from bench.run.arrivals import target_view
from bench.run.protocols.base import Protocol, WindowedConfig
from bench.run.window import Window


class RepeatedConfig(WindowedConfig):
    """Settings of the repeated protocol.

    visits : how often the samples of a domain come, within one window
    """

    visits: int = pydantic.Field(2, ge=1)


@register("protocol", "repeated")
class Repeated(Protocol):
    """The samples of a domain come several times, in another order each time."""

    Config = RepeatedConfig

    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        run = self.deployment
        for visit in range(self.config.visits):
            view = target_view(domain, self.config, run.labelled, run.seed + visit)
            self.method.adapt(view, window)
            scores.adaptation_samples += len(view)
            if visit == 0:
                scores.measure("after_first_visit", self.accuracy(domain.test))
            view.close(f"this visit of {domain.name} is over: keep samples of it, not the view")
