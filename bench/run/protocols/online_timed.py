"""The online-timed protocol: the stream does not wait for the method."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from bench.contracts.protocol import ProtocolConfig
from bench.contracts.stream import Domain
from bench.records.record import DomainScores
from bench.registry import register
from bench.run.protocols.base import COPIES, refused
from bench.run.protocols.online import Online
from bench.run.stream_clock import BlockingStream, RealTimeStream
from bench.run.window import Window


def _given(value: Any) -> Any:
    if value is None:
        raise ValueError("online-timed needs the seconds from one batch to the next, as 0.5")
    return value


class OnlineTimedConfig(ProtocolConfig):
    """Settings of the online-timed protocol.

    Attributes
    ----------
    interval_s : seconds from one batch of the stream to the next
    """

    interval_s: Annotated[float | None, pydantic.BeforeValidator(_given)] = pydantic.Field(
        None, gt=0, allow_inf_nan=False, validate_default=True
    )
    window_s: Annotated[
        None, refused("online-timed has no window, the stream limits adaptation; remove it")
    ] = pydantic.Field(None, exclude=True)


@register("protocol", "online-timed")
class OnlineTimed(Online):
    """As online, but batches arrive at a pace that does not depend on the method.

    See `bench.run.stream_clock.RealTimeStream`. Each evaluation is of the last model that is ready
    then. An adaptation that outlasts its domain goes on in the next one, unless that begins with a
    reset, and is charged to the domain it began in.
    """

    Config = OnlineTimedConfig
    timed = True
    method_protocol = "online"
    memory_unavailable = COPIES
    conformance_config = {"interval_s": 1.0}

    def make_clock(self) -> BlockingStream:
        return RealTimeStream(
            self.method, self.tracker, self.config.interval_s, self.config.batch_size
        )

    def adapt(self, domain: Domain, window: Window, scores: DomainScores) -> None:
        scores.adapted = self.follow(domain, window, scores)
