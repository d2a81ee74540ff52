"""Avalanche, imported without wandb, which leaves a folder in TMPDIR in each process.

Avalanche names wandb for a chart of a metric that nothing here draws, and imports it whenever any
of its metrics is. Import this module before Avalanche.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType


@contextmanager
def _without(name: str) -> Iterator[None]:
    """An empty module in the place of one that is not imported yet, which later can be."""
    if name in sys.modules:
        yield
        return
    empty = sys.modules[name] = ModuleType(name)
    empty.__spec__ = ModuleSpec(name, None)  # others ask whether it is installed
    try:
        yield
    finally:
        del sys.modules[name]


with _without("wandb"):
    import avalanche.training  # noqa: F401
