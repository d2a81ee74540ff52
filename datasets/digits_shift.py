"""Handwritten digits under a stream of distinct shifts: the scenario that needs no download."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench import register
from bench.datasets.digits import CLASSES, SHIFTS, DigitsConfig, DigitsScenario, Step
from bench.errors import did_you_mean


class DigitsShiftConfig(DigitsConfig):
    """``shifts``: which, in this order; ``severities``: one pass over the shifts for each.

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
        for name in value:
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


@register("scenario", "digits-shift")
class DigitsShift(DigitsScenario):
    """Real 8x8 digits of scikit-learn, 12 shifts at 2 severities: 24 target domains.

    All ten classes in the source and in every domain. The validation stream has 6 other shifts.
    """

    Config = DigitsShiftConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")

    def __init__(self, config: DigitsShiftConfig, seed: int) -> None:
        everything = tuple(range(CLASSES))
        steps = [
            Step(f"{shift}-{severity}", everything, shift, severity)
            for severity in config.severities
            for shift in config.shifts
        ]
        if config.order == "shuffled":
            steps = [steps[i] for i in np.random.default_rng(seed).permutation(len(steps))]
        super().__init__(config, seed, everything, steps)

    @classmethod
    def validation(cls, config: Any) -> Any:
        return config.model_copy(update={"part": "validation", "shifts": SHIFTS["validation"]})
