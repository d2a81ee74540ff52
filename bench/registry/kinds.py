"""The kinds of components there are: a further kind is a line here and a class to subclass."""

from __future__ import annotations

CONTRACTS: dict[str, tuple[str, str] | None] = {
    "method": ("bench.contracts.method", "Method"),
    "model": ("bench.contracts.model", "FoundationModel"),
    "variant": ("bench.contracts.variant", "Variant"),
    "stream": ("bench.contracts.stream", "Stream"),
    "protocol": ("bench.run.protocols.base", "Protocol"),
    "executor": ("bench.execute.base", "Executor"),
    "report": None,
}
"""For each kind, module and name of the class that its components are subclasses of, if any."""

KINDS = tuple(CONTRACTS)

PACKAGES = (
    "bench.methods",
    "bench.models",
    "bench.datasets",
    "bench.reports",
    "bench.run.protocols",
    "bench.execute",
)
"""Packages of this project in which components are looked for."""

ENTRY_POINT_GROUPS = (*(f"bench.{kind}s" for kind in KINDS), "bench.datasets")
"""Groups under which other installed packages name modules with components."""
