"""Which tensors to train: the greatest total importance that a backward pass can afford.

Tensors are in the order of the backward pass, the output's first. Training tensor k costs its
own gradient, ``dw[k]``, and makes the pass go on to it through all that lies before, ``before[k]``,
which is paid once, for the deepest tensor that is trained. All numbers are whole: see `quantised`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench import Unsupported

Solver = Literal["exact", "published"]


def quantised(costs: Sequence[float], unit: float) -> list[int]:
    """Whole units, rounded up, so that what is chosen keeps the budget."""
    # A cost that is k units but for rounding is k units
    return [math.ceil(cost / unit * (1 - 1e-12)) for cost in costs]


def exact(
    importance: Sequence[float], dw: Sequence[int], before: Sequence[int], limit: int
) -> list[int]:
    """Indices of the best choice, ascending; empty where nothing of positive importance fits.

    For each deepest tensor d what remains is a knapsack: tensors above d within ``limit -
    before[d] - dw[d]``. One table that grows by a tensor a row serves every d: O(n limit).
    """
    if limit < 0:
        return []
    n = len(importance)
    best = np.zeros((n + 1, limit + 1))
    value, deepest = 0.0, -1
    for k in range(n):
        gain, cost = importance[k], dw[k]
        left = limit - before[k] - cost
        if left >= 0 and gain + best[k, left] > value:
            value, deepest = gain + best[k, left], k
        row = best[k + 1]
        row[:] = best[k]
        if gain > 0 and cost <= limit:
            np.maximum(row[cost:], best[k, : limit + 1 - cost] + gain, out=row[cost:])
    if deepest < 0:
        return []
    chosen, left = [deepest], limit - before[deepest] - dw[deepest]
    for k in range(deepest - 1, -1, -1):
        if best[k + 1, left] > best[k, left]:
            chosen.append(k)
            left -= dw[k]
    return chosen[::-1]


def published(
    importance: Sequence[float], dw: Sequence[int], before: Sequence[int], limit: int
) -> list[int]:
    """The dynamic programme of the paper's section 6 as its code has it: not always the best.

    Its state is (tensors looked at, units spent); a tensor follows another that was chosen in its
    own state, and pays for the pass between the two. A state in which the tensor before was better
    left out is no start for another, and where the limit reaches all tensors the last is never
    looked at.
    """
    n = len(importance)
    if limit < 0 or not n:
        return []
    depth = next((k for k in range(n) if before[k] > limit), n - 1)
    best = np.zeros((depth + 1, limit + 1))
    came_from: NDArray[np.int64] = np.full((depth + 1, limit + 1), -1)
    for k in range(1, depth + 1):
        best[k] = best[k - 1]
        for start in range(k):
            cost = _step_down(k, start, dw, before)
            if cost > limit:
                continue
            value = best[start, : limit + 1 - cost] + importance[k - 1]
            if start:
                value = np.where(came_from[start, : limit + 1 - cost] >= 0, value, -np.inf)
            better = value > best[k, cost:]
            best[k, cost:][better] = value[better]
            came_from[k, cost:][better] = start
    chosen: list[int] = []
    k, left = depth, limit
    while k > 0:
        start = int(came_from[k, left])
        if start < 0:
            k -= 1
            continue
        chosen.append(k - 1)
        left -= _step_down(k, start, dw, before)
        k = start
    return chosen[::-1]


def _step_down(k: int, start: int, dw: Sequence[int], before: Sequence[int]) -> int:
    """Units from the ``start``-th tensor (0: the output) to the k-th, and for its gradient."""
    return dw[k - 1] + before[k - 1] - (before[start - 1] if start else 0)


SOLVERS: dict[str, Callable[..., list[int]]] = {"exact": exact, "published": published}


def backward_share(ratio: float, forward: float, backward: float) -> float:
    """Share of the whole backward pass that remains where a step may cost ``ratio`` of a whole one.

    rho (1 + T_fp / T_bp) - T_fp / T_bp, of the costs of both passes. Unsupported at or below the
    forward pass alone, which every step has.
    """
    floor = forward / (forward + backward)
    if ratio <= floor:
        raise Unsupported(
            f"cost_ratio {ratio:g} of a training step: its forward pass alone is {floor:.3f}; "
            "give more than that"
        )
    return ratio * (1 + forward / backward) - forward / backward
