"""Devices, cells and records made by hand, with round numbers."""

from __future__ import annotations

from typing import Any

from bench.costs.device_profile import ModelledDevice
from bench.operators.operator_kinds import OPERATOR_CLASSES
from bench.records.cell import Cell, Component
from bench.records.record import MethodFacts, Record

_UNLIMITED = 1e30


def make_device(
    name: str = "toy",
    *,
    launch: float = 1.0,
    flops: float = _UNLIMITED,
    bandwidth: float = _UNLIMITED,
    memory: float = _UNLIMITED,
    runtime: float = 1.0,
    idle: float = 1.0,
    per_flop: float = 1e-30,
    per_byte: float = 1e-30,
    reach: dict[str, tuple[float, float]] | None = None,
    more_flops: dict[str, float] | None = None,
    more_energy: dict[str, float] | None = None,
) -> ModelledDevice:
    """A modelled device on which, by default, nothing takes time but launches: one second each.

    Parameters
    ----------
    launch : seconds of an operator's launch
    flops, more_flops : float32 operations in a second, and those of other types
    bandwidth : bytes in a second
    memory, runtime : bytes, in all for applications and held by the runtime
    idle : watts
    per_flop, more_energy, per_byte : joules of a float32 operation, of other types', of a byte
    reach : for a class of operators the shares (0 to 1) of flops and bandwidth that it reaches
    """
    shares = dict.fromkeys(OPERATOR_CLASSES, (1.0, 1.0)) | (reach or {})
    return ModelledDevice.model_validate(
        {
            "name": name,
            "title": "a device for tests",
            "cost": "modelled",
            "flops": _quantities({"float32": flops, **(more_flops or {})}),
            "bandwidth": _quantity(bandwidth),
            "memory": _quantity(memory),
            "memory_for_applications": _quantity(memory),
            "runtime_memory": _quantity(runtime),
            "launch_overhead": _quantity(launch),
            "power_idle": _quantity(idle),
            "power_budget": _quantity(100.0),
            "energy_per_flop": _quantities({"float32": per_flop, **(more_energy or {})}),
            "energy_per_byte": _quantity(per_byte),
            "efficiency": {
                kind: _quantities({"flops": of_flops, "bandwidth": of_bandwidth})
                for kind, (of_flops, of_bandwidth) in shares.items()
            },
        }
    )


def make_cell(**changes: Any) -> Cell:
    """A cell with fixed contents, but for the fields given."""
    fields: dict[str, Any] = {
        "method": Component(name="a-method", config={"learning_rate": 0.001}, code="c0ffee"),
        "model": Component(name="a-model", config={"depth": 4}, code="beef"),
        "stream": Component(name="a-stream", config={"size": 32}, code="cafe"),
        "data": "da7a",
        "device": "a-device",
        "device_digest": "de71ce",
        "protocol": {"name": "periodic", "window_s": 60.0},
        "seed": 3,
        "core": 1,
    }
    return Cell(**{**fields, **changes})


def make_record(**changes: Any) -> Record:
    """A record of `make_cell`'s cell, or of ``cell``, that failed, but for the fields given."""
    cell = changes.pop("cell", None) or make_cell()
    fields: dict[str, Any] = {
        "identity": cell.identity,
        "run": "0123456789abcdef",
        "suite": "a-suite",
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


def _quantity(value: float) -> dict[str, Any]:
    return {"value": value, "source": "a round number, for a test", "confidence": "estimate"}


def _quantities(values: dict[str, float]) -> dict[str, dict[str, Any]]:
    return {name: _quantity(value) for name, value in values.items()}
