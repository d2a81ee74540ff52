"""In which order samples arrive: evenly mixed, class by class, or by a Markov chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from bench import BenchError

Matrix = tuple[tuple[Annotated[float, Field(ge=0, le=1)], ...], ...]


class _Arrival(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of the settings of an order."""


class Mixed(_Arrival):
    """``name``: the protocol draws the order, all samples alike."""

    name: Literal["mixed"] = "mixed"


class Dirichlet(_Arrival):
    """Samples of a class arrive together, more or less.

    ``concentration``: the less, the more a time slot is of one class; ``slots``: how many there
    are in a domain, by default one for each class. The order of RoTTA (Yuan et al., CVPR 2023) and
    NOTE (Gong et al., NeurIPS 2022).
    """

    name: Literal["dirichlet"]
    concentration: float = Field(0.1, gt=0, le=1000)
    slots: int | None = Field(None, ge=1, le=10_000)


class Markov(_Arrival):
    """Domain and class of the next sample depend on those of the last one.

    The stream is one sequence of states (domain, class), cut into ``windows``, its target domains.
    A domain stays with probability ``domain_stay`` and is else drawn anew; the most frequent one
    comes ``domain_imbalance`` times as often as the least one. ``class_stay`` and
    ``class_imbalance`` say the same of classes. A matrix of transitions, whose row i has the
    probabilities of what follows i, may stand in the place of both; validation streams, which
    have other domains, leave ``domain_matrix`` out. After UniTTA (Du et al., 2024).
    """

    name: Literal["markov"]
    windows: int = Field(5, ge=1, le=1000)
    domain_stay: float = Field(0.9, ge=0, lt=1)
    domain_imbalance: float = Field(1.0, ge=1, le=10_000)
    domain_matrix: Matrix = ()
    class_stay: float = Field(0.0, ge=0, lt=1)
    class_imbalance: float = Field(1.0, ge=1, le=10_000)
    class_matrix: Matrix = ()

    @pydantic.field_validator("domain_matrix", "class_matrix")
    @classmethod
    def _stochastic(cls, value: Matrix) -> Matrix:
        for number, row in enumerate(value, start=1):
            if len(row) != len(value) or abs(sum(row) - 1) > 1e-6:
                raise ValueError(
                    f"row {number} has {len(row)} entries of sum {sum(row):g}: a matrix of n rows "
                    "has n entries in each, of sum 1"
                )
        return value

    @property
    def of_classes(self) -> bool:
        """Whether the class of a sample matters."""
        return bool(self.class_stay or self.class_imbalance > 1 or self.class_matrix)


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Arrival = Annotated[
    Annotated[Mixed | Dirichlet | Markov, Field(discriminator="name")],
    pydantic.BeforeValidator(_named),
]
"""An order by its name, or its name and settings."""


def dirichlet_order(y: np.ndarray, arrival: Dirichlet, rng: np.random.Generator) -> np.ndarray:
    """Positions of all samples, (n,), by time slots; in a slot the classes come one by one.

    ``y``: classes, (n,). Each class is divided over the slots in proportions drawn from a Dirichlet
    distribution.
    """
    classes = np.unique(y)
    slots = arrival.slots or len(classes)
    pieces = []
    for each in classes:
        members = rng.permutation(np.flatnonzero(y == each))
        shares = rng.dirichlet(np.full(slots, arrival.concentration))
        ends = (np.cumsum(shares)[:-1] * len(members)).astype(int)
        pieces.append(np.split(members, ends))
    order = [pieces[k][slot] for slot in range(slots) for k in rng.permutation(len(classes))]
    return np.concatenate(order)


def markov_states(
    domains: int, classes: int, arrival: Markov, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The domain and the class of each of ``steps`` samples, two arrays of (steps,)."""
    a = arrival
    return (
        _chain(_matrix(domains, a.domain_stay, a.domain_imbalance, a.domain_matrix), steps, rng),
        _chain(_matrix(classes, a.class_stay, a.class_imbalance, a.class_matrix), steps, rng),
    )


def require_size(arrival: Markov, domains: int, classes: int) -> None:
    """BenchError if a matrix is not of as many states as there are."""
    for what, n, matrix in (
        ("domain", domains, arrival.domain_matrix),
        ("class", classes, arrival.class_matrix),
    ):
        if matrix and len(matrix) != n:
            raise BenchError(
                f"{what}_matrix has {len(matrix)} rows, and the stream {n} {what} states: give a "
                "row for each"
            )


def _matrix(n: int, stay: float, imbalance: float, given: Sequence[Sequence[float]]) -> np.ndarray:
    """Transitions (n, n): stay, or be drawn by frequencies that fall geometrically."""
    if given:
        return np.asarray(given)
    frequency = imbalance ** -(np.arange(n) / max(n - 1, 1))
    return stay * np.eye(n) + (1 - stay) * frequency / frequency.sum()


def _chain(matrix: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """States of a chain that begins as it goes on in the long run."""
    cumulative = matrix.cumsum(axis=1) / matrix.sum(axis=1, keepdims=True)
    draws = rng.random(steps)
    states = np.empty(steps, dtype=np.int64)
    state = int(np.searchsorted(np.cumsum(_long_run(matrix)), rng.random(), side="right"))
    state = min(state, len(matrix) - 1)
    for step in range(steps):
        states[step] = state
        state = min(
            int(np.searchsorted(cumulative[state], draws[step], side="right")), len(matrix) - 1
        )
    return states


def _long_run(matrix: np.ndarray) -> np.ndarray:
    """Shares of the states over a long time, (n,): the mean over many steps from every state."""
    shares = np.full(len(matrix), 1 / len(matrix))
    mean = np.zeros_like(shares)
    for _ in range(1000):
        mean += shares
        shares = shares @ matrix
    return mean / mean.sum()
