"""The periodic protocol: a method adapts to each domain as a whole."""

from __future__ import annotations

from typing import Annotated

import pydantic

from bench.contracts.stream import Domain
from bench.records.record import DomainScores
from bench.registry import register
from bench.run.arrivals import target_view
from bench.run.protocols.base import Protocol, WindowedConfig, refused
from bench.run.window import Window


class PeriodicConfig(WindowedConfig):
    """Settings of the periodic protocol: none beside the window."""

    interval_s: Annotated[
        None, refused("under periodic the stream waits; remove it, or take online-timed")
    ] = pydantic.Field(None, exclude=True)


@register("protocol", "periodic")
class Periodic(Protocol):
    """The adaptation samples of a domain are there at once; the method uses them as it likes."""

    Config = PeriodicConfig

    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        run = self.deployment
        view = target_view(domain, self.config, run.labelled, run.seed, self.least_batch)
        self.method.adapt(view, window)
        scores.adaptation_samples = len(view)
        view.close(f"{domain.name} is over: keep samples of it as replay memory, not the view")
