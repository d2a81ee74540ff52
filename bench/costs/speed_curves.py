"""Measured speeds of operators: curves of a calibrated profile and how a size in between is read.

A curve holds points (operations, bytes, seconds) of one kind of operator. What is interpolated is
the share of the roofline that a point reaches,

    share = max(operations / peak, bytes / bandwidth) / seconds,

linearly in logarithms: a linear radial basis function over (log operations, log bytes) with a
constant, which passes through every point, kept within the shares that were measured. No call takes
less than the shortest one that was measured of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import pydantic

from bench.costs.plausible_numbers import SECONDS_OF_A_CALL, Number

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME = 0.02
"""Points whose sizes differ by less than this (of a logarithm) are one point."""

MOST_POINTS = 5000
"""Of all curves of a profile: reading one solves a system of as many equations."""
_LARGEST = (("operations", 1e18), ("bytes", 1e15))
"""Of one call."""

_Size = Annotated[Number, pydantic.Field(ge=0)]
_Seconds = Annotated[Number, pydantic.Field(gt=0)]
Point = tuple[_Size, _Size, _Seconds]
"""(operations, bytes, seconds) of one call."""


class Curve(pydantic.BaseModel, extra="forbid", frozen=True):
    """The points of one kind of operator, of the class ``of``, by data type."""

    of: str
    points: dict[str, Annotated[list[Point], pydantic.Field(min_length=1)]]


class Curves(pydantic.BaseModel, extra="forbid", frozen=True):
    """All curves of a profile by the kind of operator, with where they come from."""

    source: str = pydantic.Field(min_length=10)
    confidence: Literal["measured"]
    kinds: dict[str, Curve]

    def find(self, kind: str, of: str, dtype: str) -> list[Point]:
        """The points for a kind: its own, else those of its nearest relatives, else of its class.

        Relatives share the name up to a dot: ``mm.tt`` is read from ``mm.nn`` and ``mm.tn``.
        Empty if nothing of the class was measured with this data type.
        """
        parts = kind.split(".")
        for length in range(len(parts), 0, -1):
            stem = ".".join(parts[:length])
            related = (c for k, c in self.kinds.items() if f"{k}.".startswith(f"{stem}."))
            if found := self._pool(dtype, related):
                return found
        return self._pool(dtype, (c for c in self.kinds.values() if c.of == of))

    def implausible(self) -> str:
        """What no measurement gives, with its key and the cure; empty if there is nothing."""
        lists = {
            f"curves.kinds.{kind}.points.{dtype}": points
            for kind, curve in self.kinds.items()
            for dtype, points in curve.points.items()
        }
        number = sum(map(len, lists.values()))
        if number > MOST_POINTS:
            return f"key curves: {number} points are more than {MOST_POINTS}: leave some out"
        for key, points in lists.items():
            for i, (*sizes, seconds) in enumerate(points):
                for size, (unit, most) in zip(sizes, _LARGEST, strict=True):
                    if size > most:
                        return f"key {key}.{i}: {size:g} {unit} are above {most:g}: check the unit"
                if told := SECONDS_OF_A_CALL.complaint(f"{key}.{i}", seconds):
                    return told
        return ""

    @staticmethod
    def _pool(dtype: str, curves: Iterable[Curve]) -> list[Point]:
        return [point for curve in curves for point in curve.points.get(dtype, ())]


class Speed:
    """Seconds of a call of any size, from the points of one kind; peaks in FLOP/s and bytes/s."""

    def __init__(self, points: Sequence[Point], peak: float, bandwidth: float) -> None:
        import numpy as np

        self._peak, self._bandwidth = peak, bandwidth
        self._shortest = min(seconds for _, _, seconds in points)
        places, shares = self._distinct(points)
        self._places = np.array(places)
        values = np.array(shares)
        self._low, self._high = float(values.min()), float(values.max())
        n = len(values)
        system = np.ones((n + 1, n + 1))
        system[:n, :n] = self._distances(self._places)
        system[n, n] = 0.0
        solved = np.linalg.solve(system, np.append(values, 0.0))
        self._weights, self._constant = solved[:n], float(solved[n])

    def seconds(self, flops: float, size: float) -> float:
        """Of one call with so many operations and bytes."""
        import numpy as np

        place = np.array([_place(flops, size)])
        share = float(self._distances(place)[0] @ self._weights) + self._constant
        share = min(max(share, self._low), self._high)
        return max(self._roof(flops, size) / math.exp(share), self._shortest)

    def _roof(self, flops: float, size: float) -> float:
        return max(max(flops, 1.0) / self._peak, max(size, 1.0) / self._bandwidth)

    def _distances(self, places: NDArray) -> NDArray:
        import numpy as np

        return np.linalg.norm(places[:, None, :] - self._places[None, :, :], axis=2)

    def _distinct(self, points: Sequence[Point]) -> tuple[list[tuple[float, float]], list[float]]:
        """Places and log shares of the points; points in one place are averaged."""
        places: list[tuple[float, float]] = []
        found: list[list[float]] = []
        for flops, size, seconds in sorted(points):
            place = _place(flops, size)
            share = math.log(self._roof(flops, size) / seconds)
            near = [i for i, other in enumerate(places) if math.dist(place, other) < SAME]
            if near:
                found[near[0]].append(share)
            else:
                places.append(place)
                found.append([share])
        return places, [sum(shares) / len(shares) for shares in found]


def _place(flops: float, size: float) -> tuple[float, float]:
    return math.log(max(flops, 1.0)), math.log(max(size, 1.0))
