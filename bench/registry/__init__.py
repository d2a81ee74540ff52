"""What components exist, what they declare, and what code they are."""

from __future__ import annotations

from bench.registry.components import (
    add_plugin,
    broken_entry_points,
    entries,
    entry,
    isolated,
    load,
    plugins,
    register,
)
from bench.registry.discovery import KINDS, Entry

__all__ = [
    "KINDS",
    "Entry",
    "add_plugin",
    "broken_entry_points",
    "entries",
    "entry",
    "isolated",
    "load",
    "plugins",
    "register",
]
