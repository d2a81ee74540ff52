"""Divide one device: by weights above floors, and what is left over to where it helps most."""

from __future__ import annotations

import numpy as np

from bench.scheduling.problem import Floats, Ints, Problem

_ROUNDS = 50
"""Number of parts, about, in which the unused share is handed out."""


def by_weight(weights: Floats, floors: Floats) -> Floats:
    """Shares that sum to 1, proportional to weights but none below its floor; shape (N,).

    ``r_i = max(floor_i, c w_i)`` with the ``c`` that makes the sum 1. The floors must sum to 1 at
    most; weights are 0 or more, and equal ones are taken if all are 0.
    """
    weights = weights if weights.max() > 0 else np.ones_like(weights)
    raised = np.zeros(len(weights), dtype=bool)
    for _ in weights:
        free = weights[~raised].sum()
        scale = (1 - floors[raised].sum()) / free if free > 0 else 0.0
        low = ~raised & (scale * weights < floors)
        if not low.any():
            break
        raised |= low
    shares = np.where(raised, floors, scale * weights)
    if raised.all():  # nobody may take more by weight: what is left is divided equally
        shares = floors + (1 - floors.sum()) / len(floors)
    return np.asarray(shares)


def hand_out(problem: Problem, levels: Ints, shares: Floats) -> Floats:
    """Shares at which no application does less, and what was idle does more; shape (N,).

    Each share is first cut to what its whole iterations take. What is left over goes, part by
    part, to the application that gains most accuracy per share. What completes no iteration
    stays idle.
    """
    each = problem.at(problem.seconds, levels) / problem.window_s  # the share of one iteration
    floors = problem.at(problem.needs, levels)
    count = problem.iterations(levels, shares)
    shares = np.maximum(floors, count * each)
    part = (1 - shares.sum()) / _ROUNDS
    while part > 0:
        left = 1 - shares.sum()
        more = problem.iterations(levels, np.maximum(shares + part, (count + 1) * each))
        extra = more * each - shares
        gain = problem.accuracies(levels, more) - problem.accuracies(levels, count)
        rate = np.where((extra <= left) & (gain > 0), gain / np.maximum(extra, 1e-12), -1.0)
        best = int(rate.argmax())
        if rate[best] > 0:
            count[best] = more[best]
            shares[best] = more[best] * each[best]
        elif part > each.min():
            part /= 2
        else:
            break
    return shares
