"""Reference benchmark for adapting foundation models on edge devices.

Methods x models x streams x devices x seeds: each run records accuracy,
time, memory and energy; the records become tables and figures.

A method needs three names: ``from bench import Method, MethodConfig, register``.
They are imported on first use, so that ``import bench`` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.registry.components import register

if TYPE_CHECKING:
    from bench.contracts.method import Method, MethodConfig
    from bench.contracts.model import FoundationModel
    from bench.contracts.stream import Stream

__version__ = "0.1.0"
__all__ = ["BenchError", "FoundationModel", "Method", "MethodConfig", "Stream", "register"]

_LAZY = {
    "Method": "bench.contracts.method",
    "MethodConfig": "bench.contracts.method",
    "FoundationModel": "bench.contracts.model",
    "Stream": "bench.contracts.stream",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
