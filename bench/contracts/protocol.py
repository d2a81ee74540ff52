"""The settings of a protocol: in which order a method predicts and adapts, under which budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from bench import registry
from bench.records.protocol_facts import DEFAULT


class ProtocolConfig(pydantic.BaseModel, extra="forbid", frozen=True):
    """The settings that every protocol has; all methods of a suite share them.

    They are part of the identity of a cell. A protocol adds its own in a subclass.

    Attributes
    ----------
    name : of the registered protocol
    batch_size : samples in a batch, in adaptation and in prediction
    samples : adaptation samples of a domain, the first ones of its split in the seed's order
    reset : ``never`` (the model goes on from domain to domain) or ``domain`` (back to the
        prepared model before each)
    evaluate_all : before the stream and after each domain, evaluate on the source and on every
        domain, for forgetting and transfer; quadratic in the number of domains
    generate : test samples of a domain whose answers are generated token by token, for BLEU-4,
        ROUGE-L and exact match, where the task is generation; the cost of inference is that of an
        answer then
    code : digest of the code of a protocol that is not part of the core; the plan sets it
    """

    name: str
    batch_size: int = pydantic.Field(64, ge=1)
    samples: int | None = pydantic.Field(None, ge=1)
    reset: Literal["never", "domain"] = "never"
    evaluate_all: bool = False
    generate: int = pydantic.Field(0, ge=0)
    code: str = ""

    @property
    def budget_s(self) -> float:
        """Device seconds of a domain's window."""
        return math.inf

    @pydantic.model_serializer(mode="wrap")
    def _content(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The name, the protocol's own settings, then those that all protocols have."""
        content: dict[str, Any] = serialise(self)
        shared = {k: content.pop(k) for k in ProtocolConfig.model_fields if k in content}
        for name in ("generate", "code"):  # as before there were such settings
            if not getattr(self, name):
                shared.pop(name, None)
        return {"name": shared.pop("name"), **content, **shared}


def protocol_class(settings: Mapping[str, Any]) -> Any:
    """The class of the protocol that settings name; BenchError with the nearest name if none."""
    return registry.load("protocol", str(settings.get("name", DEFAULT)))


def protocol_config(settings: Mapping[str, Any]) -> ProtocolConfig:
    """Settings checked by the protocol they name; pydantic.ValidationError if it refuses them."""
    given = {"name": DEFAULT, **settings}
    config: ProtocolConfig = protocol_class(settings).Config.model_validate(given)
    return config
