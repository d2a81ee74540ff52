"""Reference benchmark for adapting foundation models on edge devices.

Methods x models x streams x devices x seeds: each run records accuracy,
time, memory and energy; the records become tables and figures.

A method needs three names: ``from bench import Method, MethodConfig, register``.
They are imported on first use, so that ``import bench`` stays instant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError, Unsupported
from bench.registry.components import register

if TYPE_CHECKING:
    from bench.contracts.data import Batch, DomainView, LabelledBatch, take
    from bench.contracts.method import Method, MethodConfig, tunable
    from bench.contracts.model import Block, FoundationModel, ModelConfig, SourceTraining
    from bench.contracts.settings import LocalPath
    from bench.contracts.stream import Domain, Split, Stream, StreamConfig
    from bench.contracts.variant import Variant
    from bench.run.window import Window

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "BenchError",
    "Block",
    "Domain",
    "DomainView",
    "FoundationModel",
    "LabelledBatch",
    "LocalPath",
    "Method",
    "MethodConfig",
    "ModelConfig",
    "SourceTraining",
    "Split",
    "Stream",
    "StreamConfig",
    "Unsupported",
    "Variant",
    "Window",
    "register",
    "take",
    "tunable",
]

_HOMES = {
    "bench.contracts.data": ("Batch", "DomainView", "LabelledBatch", "take"),
    "bench.contracts.method": ("Method", "MethodConfig", "tunable"),
    "bench.contracts.model": ("Block", "FoundationModel", "ModelConfig", "SourceTraining"),
    "bench.contracts.settings": ("LocalPath",),
    "bench.contracts.stream": ("Domain", "Split", "Stream", "StreamConfig"),
    "bench.contracts.variant": ("Variant",),
    "bench.run.window": ("Window",),
}
_LAZY = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
