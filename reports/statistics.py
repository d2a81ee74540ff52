"""Estimates over seeds: means with their intervals, and differences paired by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

from bench.errors import BenchError

CONFIDENCE = 0.95
"""The share of intervals that would cover the true mean."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds, in the unit of the values.

    ``half_width``: half of the 95 % interval around the mean; None if one seed gives none.
    """

    mean: float
    half_width: float | None
    n: int

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit, ``factor`` > 0 of which make one of this."""
        width = None if self.half_width is None else self.half_width * factor
        return Estimate(self.mean * factor, width, self.n)


def mean_ci(values: Iterable[float]) -> Estimate:
    """Mean of the values with its 95 % Student-t interval.

    The half width is t(0.975, n - 1) s / sqrt(n) with the sample standard deviation s
    (Student, The probable error of a mean, Biometrika 1908). It speaks of the seeds: data
    sets and devices other than the one used are not in it.
    Raises BenchError if there are no values or if one is not finite.
    """
    known = list(values)
    if not known or not all(math.isfinite(v) for v in known):
        raise BenchError(f"mean of {known}: needs at least one value, all finite")
    n = len(known)
    # `fmean` and `stdev` sum exactly, so the order of the records cannot show in a table.
    half_width = _quantile(n - 1) * stdev(known) / math.sqrt(n) if n > 1 else None
    return Estimate(fmean(known), half_width, n)


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Mean of ``a[seed] - b[seed]`` over the seeds that both have; None if they share none.

    Pairing removes what a seed does to both sides alike (common random numbers; Bouthillier et
    al., Accounting for variance in machine learning benchmarks, MLSys 2021). The interval
    is that of the paired t-test: if it excludes 0, the test rejects at the 5 % level.
    """
    differences = [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]
    return mean_ci(differences) if differences else None


@cache
def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
