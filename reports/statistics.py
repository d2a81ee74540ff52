"""Estimates over runs: means with intervals that stay in range, paired differences, components."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from statistics import fmean, stdev
from typing import NamedTuple

from bench.errors import BenchError

CONFIDENCE = 0.95
"""The share of intervals that would cover the true mean."""

ENOUGH_DRAWS = 3
"""Draws of the source model from which on intervals are over draws and not over seeds."""

ENOUGH_FOR_INTERVAL = 3
"""Repeats from which on an interval is taken to say something."""


class Run(NamedTuple):
    """What tells a row's runs apart: the draw of the source model, and the seed."""

    draw: int
    seed: int


@dataclass(frozen=True)
class Range:
    """What a quantity can be. ``difference``: of two quantities, so that 0 has a meaning."""

    low: float = -math.inf
    high: float = math.inf
    difference: bool = False


ANY = Range()
SHARE = Range(0.0, 1.0)
DIFFERENCE = Range(-1.0, 1.0, difference=True)
POSITIVE = Range(0.0)


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds or draws, in the unit of the values.

    ``half_width``: half of the 95 % Student-t interval around the mean; None if one value gives
    none. ``range``: what the quantity can be, which `interval` does not leave.
    """

    mean: float
    half_width: float | None
    n: int
    range: Range = ANY

    def scaled(self, factor: float) -> Estimate:
        """The estimate in another unit, ``factor`` > 0 of which make one of this."""
        width = None if self.half_width is None else self.half_width * factor
        ends = replace(self.range, low=self.range.low * factor, high=self.range.high * factor)
        return Estimate(self.mean * factor, width, self.n, ends)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The ends of the 95 % interval within the range; None if one value gives none.

        Between two bounds it is formed for the logit of the mean and mapped back, above one bound
        for its logarithm, with the half width carried over by the slope at the mean (delta method).
        Of a difference the Student-t interval is kept, so that it excludes 0 exactly where the
        paired t-test rejects, and cut at the bounds.
        """
        if self.half_width is None:
            return None
        low, high, m, h = self.range.low, self.range.high, self.mean, self.half_width
        if self.range.difference:
            return max(m - h, low), min(m + h, high)
        if not h or math.isinf(low):
            return m - h, m + h
        if m <= low or m >= high:
            return m, m
        if math.isinf(high):
            step = math.exp(min(h / (m - low), 600.0))
            return low + (m - low) / step, low + (m - low) * step
        share = (m - low) / (high - low)
        step = math.exp(min(h / ((high - low) * share * (1 - share)), 600.0))
        odds = share / (1 - share)
        ends = [o / (1 + o) for o in (odds / step, odds * step)]
        return low + (high - low) * ends[0], low + (high - low) * ends[1]


def mean_ci(values: Iterable[float], within: Range = ANY) -> Estimate:
    """Mean of the values with its 95 % Student-t interval; ``within``: what they can be.

    The half width is t(0.975, n - 1) s / sqrt(n) with the sample standard deviation s
    (Student, The probable error of a mean, Biometrika 1908). It speaks of what the values are
    over, seeds or draws of the source model: data sets and devices other than the one used are
    not in it. Raises BenchError if there are no values or if one is not finite.
    """
    known = list(values)
    if not known or not all(math.isfinite(v) for v in known):
        raise BenchError(f"mean of {known}: needs at least one value, all finite")
    n = len(known)
    # Sums are exact but for their last rounding, so the order of records cannot show in a table.
    mean = fmean(known)
    if n == 1:
        return Estimate(mean, None, n, within)
    squares = 0.0 if min(known) == max(known) else math.fsum((v - mean) * (v - mean) for v in known)
    return Estimate(mean, _quantile(n - 1) * math.sqrt(squares / (n - 1) / n), n, within)


def over_draws(runs: Iterable[Run]) -> bool:
    """Whether intervals over the runs are over draws of the source model, not over seeds."""
    return len({run.draw for run in runs}) >= ENOUGH_DRAWS


def units(values: Mapping[Run, float]) -> dict[int, float]:
    """The independent repeats of a value: the mean of each draw where there are at least 3, else
    that of each seed over the draws.
    """
    of_draw = over_draws(values)
    grouped: dict[int, list[float]] = {}
    for run, value in sorted(values.items()):
        grouped.setdefault(run.draw if of_draw else run.seed, []).append(value)
    return {unit: fmean(known) for unit, known in grouped.items()}


def estimate(values: Mapping[Run, float], within: Range = ANY) -> Estimate:
    """Mean over runs, its interval over their `units`."""
    return mean_ci(units(values).values(), within)


def differences(a: Mapping[Run, float], b: Mapping[Run, float]) -> dict[int, float]:
    """The `units` of ``a[run] - b[run]`` over the runs that both have."""
    return units({run: a[run] - b[run] for run in sorted(a.keys() & b.keys())})


def paired_difference(
    a: Mapping[Run, float], b: Mapping[Run, float], within: Range = DIFFERENCE
) -> Estimate | None:
    """Mean of ``a[run] - b[run]`` over the runs that both have; None if they share none.

    Pairing removes what a seed and a source model do to both sides alike (common random numbers;
    Bouthillier et al., Accounting for variance in machine learning benchmarks, MLSys 2021). The
    interval is that of the paired t-test: if it excludes 0, the test rejects at the 5 % level.
    """
    known = differences(a, b)
    return mean_ci(known.values(), within) if known else None


def distinguishable(difference: Estimate | None) -> bool | None:
    """Whether the interval of a paired difference excludes 0, so that the paired t-test rejects
    equality at the 5 % level; None where there are too few pairs to say.
    """
    if difference is None or difference.n < ENOUGH_FOR_INTERVAL or difference.interval is None:
        return None
    low, high = difference.interval
    # What rounding leaves of equal values is no difference.
    return not low <= 0 <= high and abs(difference.mean) > 1e-12


class Components(NamedTuple):
    """Standard deviations of single runs, in the unit of the values; None: not to be told.

    ``draws``: between source models; ``seeds``: between seeds on one source model, what a seed
    does to all of them alike and what it does to one.
    """

    draws: float | None
    seeds: float | None
    n_draws: int
    n_seeds: int


def components(values: Mapping[Run, float]) -> Components:
    """Variance of draws and of seeds from the two-way analysis of variance of crossed random
    effects (Searle, Casella & McCulloch, Variance Components, 1992, section 4.7): with mean squares
    MS of K draws, S seeds and the rest E, draws have (MS_draws - MS_E) / S, cut at 0; seeds
    (MS_seeds - MS_E) / K, cut at 0, and MS_E. Over the seeds that all draws have.
    """
    draws = sorted({run.draw for run in values})
    seeds = sorted(s for s in {r.seed for r in values} if all(Run(d, s) in values for d in draws))
    k, s = len(draws), len(seeds)
    if k < 2 or s < 2:
        alone = stdev(values[Run(draws[0], seed)] for seed in seeds) if k == 1 and s > 1 else None
        return Components(None, alone, k, s)
    by_draw = [fmean(values[Run(d, seed)] for seed in seeds) for d in draws]
    by_seed = [fmean(values[Run(d, seed)] for d in draws) for seed in seeds]
    mean = fmean(by_draw)
    rest = math.fsum(
        (values[Run(d, seed)] - by_draw[i] - by_seed[j] + mean) ** 2
        for i, d in enumerate(draws)
        for j, seed in enumerate(seeds)
    ) / ((k - 1) * (s - 1))
    of_draws = max(stdev(by_draw) ** 2 - rest / s, 0.0)
    of_seeds = max(stdev(by_seed) ** 2 - rest / k, 0.0) + rest
    return Components(math.sqrt(of_draws), math.sqrt(of_seeds), k, s)


@cache
def _quantile(degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
