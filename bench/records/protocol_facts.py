"""What the protocol of a cell declares, known without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import registry

DEFAULT = "periodic"
"""The protocol of a suite that names none."""


@dataclass(frozen=True)
class ProtocolFacts:
    """What the class of a protocol declares in literals.

    Attributes
    ----------
    timed : the stream does not wait for the method, so that results depend on the device's speed
    method_protocol : which of a method's ``protocols`` it is. Under ``periodic`` a method adapts to
        a whole domain, under ``online`` to one batch at a time, each predicted before
    """

    timed: bool = False
    method_protocol: str = "periodic"


def protocol_facts(settings: Mapping[str, Any]) -> ProtocolFacts:
    """What a protocol declares, read without importing it; an unknown one has the defaults."""
    entry = registry.entries("protocol").get(settings.get("name", DEFAULT))
    facts = {} if entry is None else entry.facts
    return ProtocolFacts(**{k: v for k, v in facts.items() if k in ProtocolFacts.__annotations__})
