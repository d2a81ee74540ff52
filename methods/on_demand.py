"""On-demand adaptation: another method adapts only where the entropy of predictions has risen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from bench import DomainView, FoundationModel, Method, MethodConfig, Window, register, tunable
from bench.contracts.data import Inputs
from bench.records.cell import Cell

from ._losses import entropy
from .cotta import Cotta
from .deyo import Deyo
from .eata import Eata
from .neo import Neo
from .pseudo_label import PseudoLabel
from .sar import Sar
from .shot import Shot
from .tent import Tent

Inner = Literal["tent", "eata", "sar", "deyo", "cotta", "pseudo-label", "shot", "neo"]
INNER: dict[str, type[Method]] = {
    "tent": Tent, "eata": Eata, "sar": Sar, "deyo": Deyo, "cotta": Cotta,
    "pseudo-label": PseudoLabel, "shot": Shot, "neo": Neo,
}  # fmt: skip
"""Methods that need neither labels, nor source data, nor a memory of samples."""
assert INNER.keys() == set(get_args(Inner))


class OnDemandConfig(MethodConfig):
    """``inner``: the method that adapts; ``inner_settings``: its own, where not its defaults.

    ``threshold``: L, by how many standard deviations the average must exceed the reference;
    ``rate``: l, weight of the newest batch in the average; 3 and 0.2 are usual for such charts.
    ``reference_samples``: of the source, whose entropies are the first reference.
    """

    inner: Inner = "tent"
    inner_settings: dict[str, Any] = {}
    threshold: float = tunable(3.0, 1.0, 30.0, unit="standard deviations", log=True, ge=0, le=1e6)
    rate: float = Field(0.2, gt=0, le=1)
    reference_samples: int = Field(1000, ge=1, le=1_000_000)

    @field_validator("inner_settings")
    @classmethod
    def _of_inner(cls, value: dict[str, Any], known: ValidationInfo) -> dict[str, Any]:
        """Only what differs from the inner method's defaults, so that one choice has one form."""
        if "inner" not in known.data:
            return value
        config = INNER[known.data["inner"]].Config
        given = config.model_validate(value)
        return given.model_dump(mode="json", exclude_defaults=True)


@register("method", "on-demand")
class OnDemand(Method):
    """Adapts where a shift is detected, by another method, the idea of OD-TTA (Ma et al., 2025).

    The detector is chosen here, as only the abstract of that paper was at hand: an exponential
    moving average of the entropy of predictions against its value after the last adaptation, at
    first on the source, with the limit of the EWMA control chart (Roberts, 1959), which knows the
    spread of entropies and the size of batches. The batches of a domain are looked at in turn; at
    the first that is out of the limit the inner method adapts to the whole domain, and the
    entropies of the adapted model on it are the new reference. Each look is a forward pass,
    charged as ``detect``, and the new reference as ``reference``. OD-TTA's choice of a source model
    and its own update of BatchNorm layers are not part of it: the inner method adapts. A shift
    under which the model stays certain is not seen. Tasks, streams and protocols are the inner
    method's.
    """

    Config = OnDemandConfig
    config: OnDemandConfig
    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation", "visual-question-answering",
    )  # fmt: skip
    paper = (
        "Ma, Kwon, Ma: On-demand Test-time Adaptation for Edge Devices, arXiv 2505.00986, 2025 "
        "(idea); Roberts: Control Chart Tests Based on Geometric Moving Averages, "
        "Technometrics 1959 (detector)"
    )
    equation = (
        "adapt where e > m + L s sqrt(l (1 - (1-l)^2t) / ((2-l) n)), e = (1-l) e + l mean_i H(p_i);"
        " m, s of H on the source or after the last adaptation"
    )

    @classmethod
    def skip(cls, cell: Cell) -> str | None:
        """As the inner method."""
        from bench.study.applicability import unsupported

        config = cls.Config.model_validate(cell.method.config)
        settings = {"name": config.inner, "config": config.inner_settings}
        method = cell.method.model_copy(update=settings)
        reason = unsupported(cell.model_copy(update={"method": method}))
        return reason and f"on-demand adapts by {config.inner}: {reason}"

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        inner = INNER[self.config.inner]
        self.inner = inner(inner.Config.model_validate(self.config.inner_settings))
        self.inner.prepare(model, source)
        self.model = self.inner.model
        self.looks = self.fired = self.domains = 0
        seen = Entropies()
        with source.preserve_rng():
            for batch in source.batches():
                seen.add(self._entropies(batch.x), len(batch))
                if seen.samples >= self.config.reference_samples:
                    break
        self.spread_of_source = seen.spread
        self._refer_to(seen)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.domains += 1
        if not self._shifted(domain, window):
            return
        self.fired += 1
        self.inner.adapt(domain, window)
        seen = Entropies()
        for batch in window.steps(domain.batches(shuffle=False), kind="reference"):
            seen.add(self._entropies(batch.x), len(batch))
        if seen.samples:
            self._refer_to(seen)

    def predict(self, x: Inputs) -> Tensor:
        return self.inner.predict(x)

    def details(self) -> dict[str, Any]:
        """Batches that were looked at, domains (or batches of a stream), and in how many it fired.

        Since the last reset: a record's ``steps`` count all looks (``detect``).
        """
        counts = {"looks": self.looks, "domains": self.domains, "fired": self.fired}
        return {**self.inner.details(), "on_demand": counts}

    def state(self) -> dict[str, Any]:
        own = {k: v for k, v in vars(self).items() if isinstance(v, int | float)}
        return {"own": own, "inner": self.inner.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state["own"])
        self.inner.load_state(state["inner"])

    def _shifted(self, domain: DomainView, window: Window) -> bool:
        """Whether a batch of the domain is out of the limit; those after it are not looked at."""
        for batch in domain.batches(shuffle=False):
            with window.step(batch, kind="detect") as fits:
                if not fits:
                    return False
                mean = float(self._entropies(batch.x).mean())
                self.looks += 1
                self.since += 1
                self.average += self.config.rate * (mean - self.average)
                limit = self.reference + self._margin(len(batch))
                shifted = self.average > limit
                window.log(entropy=self.average, limit=limit, fired=float(shifted))
            if shifted:
                return True
        return False

    def _margin(self, samples: int) -> float:
        """How far above the reference the average of so large batches may be."""
        c = self.config
        variance = c.rate * (1 - (1 - c.rate) ** (2 * self.since)) / ((2 - c.rate) * samples)
        return c.threshold * self.spread * math.sqrt(variance)

    def _refer_to(self, seen: Entropies) -> None:
        """Begin a new average at the mean of these entropies.

        Their spread is at least that of the source: a few samples, or one, tell too little.
        """
        self.reference = self.average = seen.mean
        self.spread = max(seen.spread, self.spread_of_source)
        self.since = 0

    @torch.no_grad()
    def _entropies(self, x: Inputs) -> Tensor:
        """Entropy in nats of each decision on ``x``, as the inner method predicts now."""
        return entropy(self.model.units(self.inner.predict(x), x))


class Entropies:
    """Mean and standard deviation of entropies that come batch by batch, in nats."""

    def __init__(self) -> None:
        self.samples = self.units = 0
        self._sum = self._squares = 0.0

    def add(self, entropies: Tensor, samples: int) -> None:
        """Take in those of the decisions, shape (units,), on so many samples."""
        values = entropies.double()
        self.samples += samples
        self.units += len(values)
        self._sum += float(values.sum())
        self._squares += float(values.square().sum())

    @property
    def mean(self) -> float:
        """Mean over the decisions."""
        return self._sum / max(self.units, 1)

    @property
    def spread(self) -> float:
        """Standard deviation over the decisions."""
        return math.sqrt(max(self._squares / max(self.units, 1) - self.mean**2, 0.0))
