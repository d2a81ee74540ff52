"""What bootstrap draws tell: interquartile means, profiles, places on a Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .statistics import CONFIDENCE

DRAWS = 2000
"""Bootstrap draws."""

Floats = NDArray[np.float64]


def interquartile_mean(values: Floats) -> Floats:
    """Mean of the middle half along the last axis: a quarter of the values, rounded down, is cut
    from each end (Agarwal et al., Deep RL at the edge of the statistical precipice, NeurIPS 2021).
    """
    cut = values.shape[-1] // 4
    return np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)


def stratified(strata: Sequence[Sequence[float]], draws: int = DRAWS) -> Floats:
    """Bootstrap draws of all values, [draws, values]: each stratum is drawn from itself.

    ``strata``: of each scenario the repeats. The same call gives the same draws.
    """
    random = np.random.default_rng(0)
    drawn = [np.asarray(s)[random.integers(len(s), size=(draws, len(s)))] for s in strata]
    return np.concatenate(drawn, axis=1)


def percentile_interval(drawn: Floats) -> tuple[float, float]:
    """The middle 95 % of what bootstrap draws gave; it lies where the values do."""
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def profile(strata: Sequence[Sequence[float]], levels: Sequence[float]) -> Floats:
    """For each level the share of runs whose value is at most that, mean over the scenarios."""
    shares = [np.mean(np.asarray(s)[:, None] <= np.asarray(levels), axis=0) for s in strata]
    return np.mean(shares, axis=0)


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of the points (cost, benefit) that no other beats in both, by rising cost.

    Of points that are equal the first by name stays.
    """
    front: list[str] = []
    best = -math.inf
    for name, (_, benefit) in sorted(points.items(), key=lambda p: (p[1][0], -p[1][1], p[0])):
        if benefit > best:
            front.append(name)
            best = benefit
    return front


def front_shares(
    points: Mapping[str, Mapping[int, tuple[float, float]]], draws: int = DRAWS
) -> dict[str, float]:
    """The share of bootstrap draws in which each method is on the Pareto front.

    ``points``: by method and repeat, (cost, benefit). A draw takes as many of the repeats that all
    methods have as there are, the same for all; empty with fewer than 3 of them.
    """
    common = sorted(set.intersection(*map(set, points.values()))) if points else []
    if len(common) < 3:
        return {}
    random = np.random.default_rng(0)
    chosen = random.integers(len(common), size=(draws, len(common)))
    means = {
        name: np.array([known[unit] for unit in common])[chosen].mean(axis=1)
        for name, known in points.items()
    }
    names = sorted(points)
    costs, benefits = np.stack([means[name] for name in names]).transpose(2, 0, 1)
    counts = dict.fromkeys(points, 0)
    for i, name in enumerate(names):
        # As `pareto`: on the front where all that come before it are worse.
        cost, benefit = costs[i], benefits[i]
        before = (costs < cost) | ((costs == cost) & (benefits > benefit))
        same = (costs == cost) & (benefits == benefit)
        before[:i] |= same[:i]
        counts[name] = int((~(before & (benefits >= benefit)).any(axis=0)).sum())
    return {name: count / draws for name, count in counts.items()}
