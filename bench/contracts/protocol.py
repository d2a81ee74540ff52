"""What all methods of a suite have in common: order, budget, batch size, reset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import pydantic

if TYPE_CHECKING:
    pass


class ProtocolConfig(pydantic.BaseModel, extra="forbid", frozen=True):
    """What all methods of a suite have in common; part of the identity.

    name : ``periodic`` (adapt to a whole domain at once), ``online`` (predict, then adapt, batch by
        batch) or ``online-timed`` (so as well, but the stream does not wait:
        `bench.run.stream_clock.RealTimeStream`)
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
        # What does not apply is left out: given, it would not be accepted again.
        content.pop("window_s" if self.timed else "interval_s", None)
        return content
