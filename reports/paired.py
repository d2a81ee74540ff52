"""Two methods compared: paired difference, effect size, Wilcoxon's test, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from .statistics import DIFFERENCE, POSITIVE, Estimate, Run, differences, mean_ci, units

ENOUGH_PAIRS = 6
"""Pairs from which on Wilcoxon's two-sided test can fall below .05: 2 / 2^5 = .0625 with five."""

_ENUMERATED = 12
"""Pairs up to which all assignments of signs are counted."""


@dataclass(frozen=True)
class Paired:
    """One method against another, over pairs.

    ``effect``: Hedges' g of paired differences; None with fewer than 3 pairs or where all
    differences are equal. ``p``: of Wilcoxon's signed-rank test, None where n is too small.
    """

    difference: Estimate
    effect: float | None
    p: float | None


def paired(a: Mapping[Run, float], b: Mapping[Run, float]) -> Paired | None:
    """A method's scores against another's, over the runs that both have; None without any."""
    known = list(differences(a, b).values())
    return compare_pairs(known) if known else None


def compare_pairs(known: Sequence[float]) -> Paired:
    """The comparison from its differences of scores, one for each pair."""
    return Paired(mean_ci(known, DIFFERENCE), hedges_g(known), wilcoxon_p(known))


def hedges_g(known: Sequence[float]) -> float | None:
    """Cohen's d_z, mean / standard deviation of the differences, times Hedges' exact correction
    J = gamma(m / 2) / (sqrt(m / 2) gamma((m - 1) / 2)) with m = n - 1, which takes out the bias of
    few pairs (Hedges, Distribution theory for Glass's estimator of effect size, 1981).
    """
    m = len(known) - 1
    if m < 2:
        return None
    spread = stdev(known)
    # Of equal differences rounding leaves a spread that means nothing.
    if spread <= 1e-12 * max(map(abs, known)):
        return None
    log_j = math.lgamma(m / 2) - math.lgamma((m - 1) / 2) - 0.5 * math.log(m / 2)
    return fmean(known) / spread * math.exp(log_j)


def wilcoxon_p(known: Sequence[float]) -> float | None:
    """Two-sided p of the signed-rank test (Wilcoxon 1945); None where fewer than 6 pairs differ.

    Exact over all assignments of signs up to 12 pairs, which ties among accuracies do not harm;
    beyond, as scipy chooses. Pairs without difference are left out, as Wilcoxon did.
    """
    # Differences that are equal but for rounding are ties.
    rounded = [round(d, 12) for d in known]
    differing = [d for d in rounded if d]
    if len(differing) < ENOUGH_PAIRS:
        return None
    from scipy.stats import PermutationMethod, wilcoxon

    exact = len(differing) <= _ENUMERATED
    method = PermutationMethod(n_resamples=2**_ENUMERATED) if exact else "auto"
    return float(wilcoxon(differing, method=method).pvalue)


def t_test_p(known: Sequence[float], steps: bool = False) -> float | None:
    """Two-sided p of the paired t-test, that of the interval of `mean_ci`; None with one pair.

    Of equal differences the t-test would be certain from two pairs on. ``steps``: the values come
    in steps, as shares of some samples do, and a few differences are equal by chance: then
    `wilcoxon_p` tells, which has 2 / 2^n there.
    """
    spread = stdev(known) if len(known) > 1 else None
    if spread is None:
        return None
    largest = max(map(abs, known))
    if spread <= 1e-12 * largest:
        if not largest:
            return 1.0
        return wilcoxon_p(known) if steps else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(known, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold for all of a family at once (Holm 1979): the smallest of m
    times m, the next times m - 1, and so on, none below the one before and none above 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min((len(p_values) - rank) * p_values[i], 1.0))
        adjusted[i] = least
    return adjusted


def geometric_mean(ratios: Sequence[float]) -> Estimate | None:
    """Geometric mean of paired ratios; its interval is the Student-t one of their logarithms.

    `Estimate.half_width` is that on the logarithmic scale times the mean, which
    `Estimate.interval` turns back exactly. None without ratios.
    """
    if not ratios:
        return None
    logs = mean_ci(math.log(r) for r in ratios)
    mean = math.exp(logs.mean)
    width = None if logs.half_width is None else logs.half_width * mean
    return Estimate(mean, width, logs.n, POSITIVE)


def ratio(a: Mapping[Run, float], b: Mapping[Run, float]) -> Estimate | None:
    """Geometric mean of ``a[run] / b[run]`` over the runs that both have, both above 0."""
    logs = {r: math.log(a[r] / b[r]) for r in sorted(a.keys() & b.keys()) if a[r] > 0 and b[r] > 0}
    return geometric_mean([math.exp(v) for v in units(logs).values()])
