"""Several applications at once over any data, each with its own stream of shifts."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from bench import BenchError, Domain, LazyInputs, Split, register
from bench.contracts.data import Inputs, SampleType

from .._samples import joined
from ._data import Divided, generator
from ._shifts import ShiftConfig, ShiftedStream

APP, IMAGE = "app", "image"
"""The input that says whose a sample is, and the name of an input that is one tensor."""


class ApplicationsConfig(ShiftConfig):
    """As `ShiftConfig`, and ``applications``: how many share the device; ``windows``: target
    domains of each, by default as many as there are shifts, up to 8.
    """

    applications: int = Field(3, ge=2, le=64)
    windows: int | None = Field(None, ge=1, le=1000)


@register("stream", "applications")
class Applications(ShiftedStream):
    """Any data set for several applications, each with its own order of distinct shifts.

    Inputs are a dict: those of the data (``image``, where they are one tensor), and ``app``, int64
    of shape (n,), from 0. Target domain ``window-w`` holds for every application the samples of
    that application's own w-th shift, equally many of each and one application after another, so
    that the mean over samples is the mean over applications. Which shift comes when is drawn for
    each application from (seed, application). In the source the applications take turns, sample by
    sample.
    """

    Config = ApplicationsConfig
    config: ApplicationsConfig

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        most = len(self.inputs)
        windows = config.windows or min(most, 8)
        if config.part == "validation":
            windows = min(windows, most)
        if windows > most:
            raise BenchError(
                f"windows {windows}: there are {most} distinct shifts; take fewer windows, or name "
                "more targets or corruptions"
            )
        self._windows = windows
        orders = [generator(seed, f"app{app}").permutation(most) for app in range(self._apps)]
        self._orders = [[self.inputs[i] for i in order[:windows]] for order in orders]

    @property
    def _apps(self) -> int:
        return self.config.applications

    def source_settings(self) -> dict[str, Any]:
        return {**super().source_settings(), "applications": self._apps}

    def source(self) -> Domain:
        made = self.made("source", self.source_parts, self.config.source_samples, 0)
        return Domain(made.name, self._in_turns(made.adaptation), self._in_turns(made.test))

    def domain_names(self) -> list[str]:
        return [f"window-{number + 1}" for number in range(self._windows)]

    def domain(self, name: str) -> Domain:
        self.require_name(name)
        window = self.domain_names().index(name)
        own = [self._own(app, order[window]) for app, order in enumerate(self._orders)]
        return Domain(
            name, self._one_after_another([part.adaptation for part in own], f"{name}/adaptation"),
            self._one_after_another([part.test for part in own], f"{name}/test"),
        )  # fmt: skip

    def _own(self, app: int, shift: str) -> Divided:
        """The samples of one application in a window."""
        name = f"app{app}-{shift}"
        domain = self.made(name, self.clean(shift), self.config.samples, self.seed)
        made = (
            self.shifted(split, shift, f"{self.seed}/{name}/{part}")
            for part, split in (("adaptation", domain.adaptation), ("test", domain.test))
        )
        return Divided(*made)

    def _one_after_another(self, splits: list[Split], what: str) -> Split:
        """Samples of every application, as many of each as of the one with the fewest.

        They are drawn, as files often lie class by class.
        """
        n = min(map(len, splits))
        drawn = [self.limited(s, n, self.seed, f"{what}/app{app}") for app, s in enumerate(splits)]
        every = joined(drawn)
        return Split(_owned(every.x, torch.arange(len(splits)).repeat_interleave(n)), every.y)

    def _in_turns(self, split: Split) -> Split:
        return Split(_owned(split.x, torch.arange(len(split)) % self._apps), split.y)


def _owned(x: Inputs, app: Tensor) -> Inputs:
    if isinstance(x, LazyInputs):
        return _Owned(x, app)
    return {APP: app, **(x if isinstance(x, dict) else {IMAGE: x})}


class _Owned(LazyInputs):
    """Lazy inputs of which each is of an application."""

    def __init__(self, inputs: LazyInputs, app: Tensor) -> None:
        super().__init__(torch.arange(len(app)))
        self._inputs, self._app = inputs, app

    def read(self, positions: Tensor) -> Inputs:
        x = self._inputs[positions]
        return {APP: self._app[positions], **(x if isinstance(x, dict) else {IMAGE: x})}

    def column(self, name: str) -> Tensor | None:
        return self._app[self.positions] if name == APP else None

    def names(self, positions: Tensor) -> list[str]:
        every = self._inputs.sample_names()
        return [every[i] for i in positions.tolist()]

    @property
    def sample_types(self) -> dict[str, SampleType]:
        types = {name or IMAGE: kind for name, kind in self._inputs.sample_types.items()}
        return {APP: ((), torch.int64), **types}

    def settings(self) -> Any:
        return [self._app[self.positions].tolist(), self._inputs.settings()]
