"""Reference benchmark for adapting foundation models on edge devices.

Methods x models x scenarios x devices x seeds: each run records accuracy,
time, memory and energy; the records become tables and figures.

A method needs three names: ``from bench import Method, MethodConfig, register``.
They are imported on first use, so that ``import bench`` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.registry import register

if TYPE_CHECKING:
    from bench.method import Method, MethodConfig
    from bench.model import FoundationModel
    from bench.scenario import Scenario

__version__ = "0.1.0"
__all__ = ["BenchError", "FoundationModel", "Method", "MethodConfig", "Scenario", "register"]

_LAZY = {
    "Method": "bench.method",
    "MethodConfig": "bench.method",
    "FoundationModel": "bench.model",
    "Scenario": "bench.scenario",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
