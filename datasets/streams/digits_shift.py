"""Handwritten digits under a stream of distinct shifts: the stream that needs no download."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench import register
from bench.errors import did_you_mean

from ..digits import ALL_CLASSES, SHIFTS, DigitsConfig, DigitsStream, Step


class DigitsShiftConfig(DigitsConfig):
    """``shifts``: which, in this order; ``severities``: one pass over the shifts for each.

    A shift that names its severity, as ``blur-2``, comes with that one alone, and then all do.
    The shifts are by default all of the ``part``, "test" or "validation"; no shift is in both.
    ``order``: ``listed`` as above, or ``shuffled`` by the seed. ``size``: pixels a side.
    """

    shifts: tuple[str, ...] = Field(SHIFTS["test"], min_length=1)
    severities: tuple[Literal[1, 2], ...] = Field((1, 2), min_length=1)
    order: Literal["listed", "shuffled"] = "listed"

    @model_validator(mode="before")
    @classmethod
    def _all_of_the_part(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("part") == "validation":
            return {"shifts": SHIFTS["validation"], **data}
        return data

    @field_validator("shifts", "severities")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a thing twice; domains must be distinct")
        return value

    @field_validator("shifts")
    @classmethod
    def _of_the_part(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        part = info.data.get("part", "test")
        known = SHIFTS[part]
        named = [_severity(shift) for shift in value]
        if len({severity is None for _, severity in named}) > 1:
            raise ValueError("let all shifts name their severity, as blur-2, or none")
        for name, _ in named:
            if name in known:
                continue
            for other in SHIFTS:
                if name in SHIFTS[other]:
                    raise ValueError(
                        f"shift {name!r} belongs to part {other!r}: tuning must not see what is "
                        f"reported; part {part!r} has {', '.join(known)}"
                    )
            raise ValueError(f"unknown shift {name!r}; {did_you_mean(name, known)}")
        return value


@register("stream", "digits-shift")
class DigitsShift(DigitsStream):
    """Real 8x8 digits of scikit-learn, 12 shifts at 2 severities: 24 target domains.

    All ten classes in the source and in every domain. The validation stream has 6 other shifts.
    """

    Config = DigitsShiftConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")

    def __init__(self, config: DigitsShiftConfig, seed: int) -> None:
        named = [_severity(shift) for shift in config.shifts]
        if named[0][1] is None:
            named = [(shift, s) for s in config.severities for shift, _ in named]
        steps = [Step(f"{shift}-{s}", ALL_CLASSES, shift, s or 1) for shift, s in named]
        if config.order == "shuffled":
            steps = [steps[i] for i in np.random.default_rng(seed).permutation(len(steps))]
        super().__init__(config, seed, ALL_CLASSES, steps)

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation", "shifts": SHIFTS["validation"]})


def _severity(shift: str) -> tuple[str, int | None]:
    """``blur-2`` as ("blur", 2), and ``blur`` without a severity."""
    name, dash, severity = shift.rpartition("-")
    return (name, int(severity)) if dash and severity in ("1", "2") else (shift, None)
