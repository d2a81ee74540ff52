"""Small parts that the tests of several rooms share: devices, cells and records by hand."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Tiny tensors: threads cost more than they bring, and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings
from workplace import Workplace

settings.register_profile("bench", deadline=None, database=None, derandomize=True)
settings.load_profile("bench")


def pytest_runtest_setup() -> None:
    """Look for no garbage among the tests and what they have imported: it takes 0.5 s each time."""
    if not gc.get_freeze_count():  # the first test, or one of the check that takes all back
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def make_device() -> Callable[..., Any]:
    """A modelled device; by default nothing but its launches takes time, one second each."""
    from bench.testing import make_device

    return make_device


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Any]:
    """A cell with fixed contents and known names, but for the fields given."""
    from bench.records.cell import Component
    from bench.testing import make_cell

    known = {
        "method": Component(name="tent", config={"learning_rate": 0.001}, code="c0ffee"),
        "model": Component(name="digits-vit", config={"depth": 4}, code="beef"),
        "stream": Component(name="digits-shift", config={"size": 32}, code="cafe"),
        "device": "xavier-nx",
    }
    return lambda **changes: make_cell(**(known | changes))


@pytest.fixture(scope="session")
def make_record(make_cell: Callable[..., Any]) -> Callable[..., Any]:
    """A record of `make_cell`'s cell with fixed contents, but for the fields given."""
    from bench.testing import make_record

    def make(**changes: Any) -> Any:
        return make_record(**{"cell": make_cell(), "suite": "domain-shift"} | changes)

    return make


@pytest.fixture
def empty_registry() -> Iterator[None]:
    """No plugin is known in the test, and none that it adds is known after it."""
    from bench.testing import isolated_registry

    with isolated_registry():
        yield


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of commands that tests start in a `workplace`."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def workplace(tmp_path: Path, shared_cache: Path) -> Workplace:
    """The folder in which commands run."""
    return Workplace(tmp_path, shared_cache)
