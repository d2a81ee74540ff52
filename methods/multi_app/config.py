"""Settings of several applications that share a device."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..edgeta.config import EdgeTAConfig


class MultiAppConfig(EdgeTAConfig):
    """As `EdgeTAConfig`, for every application, and what a scheduler may choose.

    ``scheduler``: of `bench.scheduling`; that EdgeTA used scikit-opt's genetic algorithm is likely
    (the repair of plans that break a constraint is added here), and ekya and recl are simplified
    (see `bench.scheduling.baselines`); ``epochs``: most passes over an application's samples in one
    window; ``levels``: how many sparsities there are to choose from, evenly from ``min_sparsity``
    to ``max_sparsity``; ``sparsity``: that of the proxies before the first window; ``min_share``:
    of the device, that each application gets; ``memory_mb``: megabytes that the applications may
    take together while retraining; ``half_iterations``: iterations to half of the gain, before any
    were seen. Proxies are retrained whole: ``trained_share`` is 1.
    """

    scheduler: Literal["exact", "genetic", "greedy", "uniform", "ekya", "recl"] = "exact"
    epochs: int = Field(10, ge=1, le=100)
    levels: int = Field(4, ge=1, le=10)
    sparsity: float = Field(0.3, ge=0, lt=1)
    min_share: float = Field(0.05, gt=0, le=1)
    memory_mb: float = Field(4000.0, gt=0, le=1e6)
    half_iterations: float = Field(30.0, ge=1, le=1000)
    trained_share: float = Field(1.0, ge=1, le=1)

    def grid(self) -> list[float]:
        """The sparsities to choose from, rising."""
        low, high = self.min_sparsity, self.max_sparsity
        steps = max(self.levels - 1, 1)
        return sorted({round(low + (high - low) * i / steps, 6) for i in range(self.levels)})
