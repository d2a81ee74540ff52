"""Reasons for missing energy: it is unavailable with a reason, never 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.errors import BenchError


class MeterError(BenchError):
    """A meter or one of its windows has no result; the message is the reason to record."""


class ReadFailed(MeterError):
    """A sensor could not be read this time; the next reading may succeed."""


@dataclass(frozen=True)
class Unavailable:
    """No meter measures this machine.

    ``reason`` is one line; ``tried`` holds the reason of each meter by its name.
    """

    reason: str
    tried: Mapping[str, str]
