"""Small parts that the tests of several rooms share: devices, cells and records by hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Tiny tensors: threads cost more than they bring, and tests may run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

settings.register_profile("bench", deadline=None, database=None, derandomize=True)
settings.load_profile("bench")

_WHY = "a round number, for a test"
_HUGE = 1e30


@pytest.fixture(scope="session")
def make_device() -> Callable[..., Any]:
    """A modelled device; by default nothing but its launches takes time, one second each."""
    from bench.costs.device_profile import ModelledDevice
    from bench.costs.operator_kinds import OPERATOR_CLASSES

    def quantity(value: float) -> dict[str, Any]:
        return {"value": value, "source": _WHY, "confidence": "estimate"}

    def make(
        name: str = "toy",
        *,
        launch: float = 1.0,
        flops: float = _HUGE,
        bandwidth: float = _HUGE,
        memory: float = _HUGE,
        runtime: float = 1.0,
        idle: float = 1.0,
        per_flop: float = 1e-30,
        per_byte: float = 1e-30,
        reach: dict[str, tuple[float, float]] | None = None,
        more_flops: dict[str, float] | None = None,
        more_energy: dict[str, float] | None = None,
    ) -> ModelledDevice:
        shares = dict.fromkeys(OPERATOR_CLASSES, (1.0, 1.0)) | (reach or {})
        return ModelledDevice.model_validate(
            {
                "name": name,
                "title": "a device for tests",
                "cost": "modelled",
                "flops": {
                    k: quantity(v) for k, v in {"float32": flops, **(more_flops or {})}.items()
                },
                "bandwidth": quantity(bandwidth),
                "memory": quantity(memory),
                "memory_for_applications": quantity(memory),
                "runtime_memory": quantity(runtime),
                "launch_overhead": quantity(launch),
                "power_idle": quantity(idle),
                "power_budget": quantity(100.0),
                "energy_per_flop": {
                    k: quantity(v) for k, v in {"float32": per_flop, **(more_energy or {})}.items()
                },
                "energy_per_byte": quantity(per_byte),
                "efficiency": {
                    k: {"flops": quantity(a), "bandwidth": quantity(b)}
                    for k, (a, b) in shares.items()
                },
            }
        )

    return make


@pytest.fixture(scope="session")
def make_cell() -> Callable[..., Any]:
    """A cell with fixed contents, but for the fields given."""
    from bench.records.cell import Cell, Component

    def make(**changes: Any) -> Cell:
        fields: dict[str, Any] = {
            "method": Component(name="tent", config={"learning_rate": 0.001}, code="c0ffee"),
            "model": Component(name="digits-vit", config={"depth": 4}, code="beef"),
            "stream": Component(name="digits-shift", config={"size": 32}, code="cafe"),
            "data": "da7a",
            "device": "xavier-nx",
            "device_digest": "de71ce",
            "protocol": {"name": "periodic", "window_s": 60.0},
            "seed": 3,
            "core": 1,
        }
        return Cell(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_record(make_cell: Callable[..., Any]) -> Callable[..., Any]:
    """A record of `make_cell`'s cell with fixed contents, but for the fields given."""
    from bench.records.record import MethodFacts, Record

    def make(**changes: Any) -> Record:
        cell = changes.pop("cell", None) or make_cell()
        fields: dict[str, Any] = {
            "identity": cell.identity,
            "run": "0123456789abcdef",
            "suite": "domain-shift",
            "status": "failed",
            "reason": "a reason",
            "cell": cell,
            "method": MethodFacts(
                family="UDA", provenance="published", paper="none", needs=[], changed={}
            ),
            "started": "2025-01-01T00:00:00+00:00",
            "wall_s": 1.5,
        }
        return Record(**{**fields, **changes})

    return make
