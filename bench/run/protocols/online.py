"""The online protocol: a method predicts each batch of the stream, then adapts to it."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pydantic
import torch

from bench.contracts.data import DomainView, batch_positions, take
from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain, Split
from bench.records.record import DomainScores
from bench.registry import register
from bench.run.arrivals import arrivals
from bench.run.protocols.base import Protocol, WindowedConfig, refused
from bench.run.window import Window

ALTERNATING = (
    "predictions and adaptation alternate inside a window, and a meter cannot separate their energy"
)


class OnlineConfig(WindowedConfig):
    """Settings of the online protocol: none beside the window."""

    interval_s: Annotated[
        None, refused("under online the stream waits; remove it, or take online-timed")
    ] = pydantic.Field(None, exclude=True)


@register("protocol", "online")
class Online(Protocol):
    """Samples arrive batch by batch; each batch is predicted and scored, then adapted to, once.

    When the window has closed the method goes on predicting.
    """

    Config: ClassVar[type[ProtocolConfig]] = OnlineConfig
    method_protocol = "online"
    energy_unavailable = ALTERNATING

    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        self.follow(domain, window, scores)

    def follow(self, domain: Domain, window: Window, scores: DomainScores) -> float:
        """Predict, then adapt, batch by batch; the share of batches that were adapted on."""
        run = self.deployment
        stream, generator = arrivals(domain, self.config, run.seed)
        batches = batch_positions(
            torch.arange(len(stream)), self.config.batch_size, self.least_batch
        )
        score, adapted = self.evaluator.online_score(), 0
        for number, chosen in enumerate(batches, start=1):
            arrived = Split(take(stream.x, chosen), stream.y[chosen])
            where = f"batch {number} of the stream of {domain.name!r}"
            self.score_batch(arrived, where, score)
            if self.clock.accepts_batch and not window.closed:
                y = arrived.y if run.labelled else None
                view = DomainView(
                    domain.name, arrived.x, y, self.config.batch_size, generator,
                    single_pass=True, least_batch=self.least_batch,
                )  # fmt: skip
                adapted += self.clock.adapt(view, window)
                view.close(
                    f"this batch of {domain.name} is over: an online stream gives each batch once"
                )
            self.clock.advance()
        scores.online = score.value(f"the stream of {domain.name!r}")
        scores.adaptation_samples = len(stream)
        return adapted / len(batches)
