"""Submodules by name, and the cure for a name that a network does not have."""

from __future__ import annotations

from torch import nn

from bench.errors import did_you_mean


def module_at(module: nn.Module, name: object) -> nn.Module | None:
    """The submodule ``name``; None if there is none, or if ``name`` is no text."""
    try:
        return module.get_submodule(name) if isinstance(name, str) else None
    except AttributeError:
        return None


def nearest_module(module: nn.Module, name: object) -> str:
    """The cure for a wrong name of a submodule: the nearest names, or those at the top."""
    known = [n for n, _ in module.named_modules() if n]
    cure = did_you_mean(str(name), known)
    top = [n for n, _ in module.named_children()]
    return cure if cure.startswith("did you mean") else did_you_mean("", top)
