"""Random scheduling problems with the trade-offs of real proxies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench.scheduling.application import Application
from bench.scheduling.problem import Problem


@pytest.fixture(scope="session")
def make_application() -> Callable[..., Application]:
    """One application with two levels and round numbers, but for the fields given."""

    def make(**changes) -> Application:
        fields = {
            "name": "a",
            "sparsities": (0.0, 0.5),
            "seconds_per_iteration": (0.2, 0.1),
            "memory_bytes": (2e9, 1e9),
            "accuracy": (0.9, 0.8),
            "start": (0.5, 0.4),
            "half_iterations": 100.0,
        }
        return Application(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def random_problem() -> Callable[..., Problem]:
    """Sparser proxies are faster, smaller and less accurate; memory is short, more or less."""

    def make(seed: int, count: int = 6, levels: int = 10, **changes) -> Problem:
        rng = np.random.default_rng(seed)
        applications = []
        for i in range(count):
            s = np.linspace(0, 0.9, levels) if levels > 1 else np.array([0.5])
            ceiling = rng.uniform(0.6, 0.95) - rng.uniform(0.05, 0.4) * s ** rng.uniform(1, 4)
            start = rng.uniform(0.2, 0.6) - rng.uniform(0, 0.2) * s
            applications.append(
                Application(
                    name=f"app{i}",
                    sparsities=tuple(s),
                    seconds_per_iteration=tuple(
                        rng.uniform(0.02, 0.4) * (1 - rng.uniform(0.6, 0.95) * s)
                    ),
                    memory_bytes=tuple(rng.uniform(0.5e9, 3e9) * (1 - rng.uniform(0.5, 0.9) * s)),
                    accuracy=tuple(ceiling),
                    start=tuple(start),
                    half_iterations=rng.uniform(5, 150),
                )
            )
        least = sum(min(a.memory_bytes) for a in applications)
        most = sum(max(a.memory_bytes) for a in applications)
        memory = least + rng.uniform(0.1, 1.0) * (most - least)
        return Problem(tuple(applications), 60.0, memory, **changes)

    return make
