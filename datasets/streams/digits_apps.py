"""Handwritten digits for several applications at once, each with its own stream of shifts."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator, model_validator

from bench import Domain, Split, register

from ..digits import ALL_CLASSES, SHIFTS, DigitsConfig, DigitsStream, Step


class DigitsAppsConfig(DigitsConfig):
    """``applications``: how many share the device; ``windows``: target domains of each.

    ``severities``: of the shifts that a stream may contain; the shifts are all of the ``part``,
    "test" or "validation". ``size``: pixels a side.
    """

    applications: int = Field(3, ge=2, le=8)
    windows: int = Field(8, ge=1, le=24)
    severities: tuple[Literal[1, 2], ...] = Field((1, 2), min_length=1)

    @field_validator("severities")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("names a severity twice; the domains of a stream must be distinct")
        return value

    @model_validator(mode="after")
    def _enough_shifts(self) -> DigitsAppsConfig:
        if self.windows > (most := _choices(self)):
            raise ValueError(
                f"windows {self.windows}: part {self.part!r} has {most} distinct domains at these "
                "severities; take fewer windows"
            )
        return self


def _choices(config: DigitsAppsConfig) -> int:
    """How many distinct domains a stream may have at most."""
    return len(SHIFTS[config.part]) * len(config.severities)


@register("stream", "digits-apps")
class DigitsApps(DigitsStream):
    """Digits for 3 applications, each with 8 windows of its own order of distinct shifts.

    Inputs are a dict: ``image``, float32 of shape (n, 1, size, size), and ``app``, int64 of shape
    (n,), from 0. Target domain ``window-w`` holds for every application the images of that
    application's own w-th domain, equally many of each and one application after another, so
    that the mean over samples is the mean over applications. Which shifts at which severity come
    when is drawn for each application from (seed, application): windows are harder for one than
    for another. The images are those of ``digits-shift``: what any application adapts on, none is
    tested on. In the source the applications take turns, image by image.
    """

    Config = DigitsAppsConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")

    def __init__(self, config: DigitsAppsConfig, seed: int) -> None:
        super().__init__(config, seed, ALL_CLASSES, ())
        self.streams = [
            [
                Step(f"app{app}-{shift}-{severity}", ALL_CLASSES, shift, severity)
                for shift, severity in _stream(config, seed, app)
            ]
            for app in range(config.applications)
        ]

    @classmethod
    def validation(cls, config: Any) -> Any:
        checked = super().validation(config)
        return checked.model_copy(update={"windows": min(config.windows, _choices(checked))})

    def source(self) -> Domain:
        clean = super().source()
        return Domain(clean.name, self._in_turns(clean.adaptation), self._in_turns(clean.test))

    def source_settings(self) -> dict[str, Any]:
        return {**super().source_settings(), "applications": self.config.applications}

    def domain_names(self) -> list[str]:
        return [f"window-{number + 1}" for number in range(self.config.windows)]

    def domain(self, name: str) -> Domain:
        steps = [stream[self.position(name)] for stream in self.streams]
        parts = ([self._shifted(s, part) for s in steps] for part in ("adaptation", "test"))
        return Domain(name, *map(_joined, parts))

    def _in_turns(self, split: Split) -> Split:
        app = torch.arange(len(split)) % self.config.applications
        return Split({"app": app, "image": split.x}, split.y)


def _stream(config: DigitsAppsConfig, seed: int, app: int) -> list[tuple[str, int]]:
    """Distinct shifts at their severities, in the order of one application's windows."""
    choices = [(shift, severity) for shift in SHIFTS[config.part] for severity in config.severities]
    order = np.random.default_rng((seed, app)).permutation(len(choices))
    return [choices[i] for i in order[: config.windows]]


def _joined(splits: list[Split]) -> Split:
    """The splits of application 0, 1, ... one after another."""
    app = torch.cat([torch.full((len(split),), number) for number, split in enumerate(splits)])
    image = torch.cat([split.x for split in splits])
    return Split({"app": app, "image": image}, torch.cat([split.y for split in splits]))
