"""Copies of all that a method holds, and what such a copy does not reach."""

from __future__ import annotations

import copy
import enum
import functools
import logging
from collections import deque
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pydantic
import torch
from torch import Tensor

from bench.contracts.data import DomainView, LazyInputs
from bench.errors import Unsupported
from bench.snapshots.content import changed_part, outside_content, reachable

if TYPE_CHECKING:
    from bench.contracts.method import Method

_MUTABLE = (
    Tensor, np.ndarray, list, dict, set, deque, bytearray, torch.Generator,
    functools._lru_cache_wrapper,
)  # fmt: skip
_SHARED = (enum.Enum, logging.Logger, DomainView, LazyInputs, type, ModuleType)


class Snapshot:
    """A copy of all that a method holds, that it can be set back to any number of times.

    ``purpose`` names who needs it, for errors. Raises Unsupported where there can be no copy.
    """

    def __init__(self, method: Method, purpose: str) -> None:
        self._method = method
        self._purpose = purpose
        self._held = self._copy(vars(method))

    def restore(self) -> None:
        """Give the method a copy of what was kept in the place of all that it holds."""
        put(self._method, self._copy(self._held))

    def serve(self) -> dict[str, Any]:
        """Put the kept state itself into the method; gives what it held, for `put`."""
        newer = dict(vars(self._method))
        put(self._method, self._held)
        return newer

    def require_independent(self) -> None:
        """Raise Unsupported, naming the attribute, if the copy still uses what it is a copy of.

        A lambda, closure or hook goes on using the objects that it was made with.
        """
        shared = _shared_state(self._method, self._held)
        if shared is not None:
            name, kind = shared
            raise _not_copied(
                self._purpose,
                self._method,
                f"attribute {name!r} holds a function (lambda, closure, hook) that goes on using a "
                f"{kind} from before the copy; reach it through self instead",
            )

    def _copy(self, held: dict[str, Any]) -> dict[str, Any]:
        try:
            # What refers to the method goes on referring to it: its attributes are replaced.
            return copy.deepcopy(held, {id(self._method): self._method})
        except (TypeError, RuntimeError, RecursionError) as error:
            why = f"it holds something that cannot: {error}"
            raise _not_copied(self._purpose, self._method, why) from error


class OutsideState:
    """Watches class attributes and globals, which no copy of a method reaches."""

    def __init__(self, method: Method, purpose: str) -> None:
        self._method = method
        self._purpose = purpose
        self._content = outside_content(method)

    def require_unchanged(self) -> None:
        """Raise Unsupported, naming it, if one is no longer what it was."""
        changed = changed_part(self._content, outside_content(self._method))
        if changed is not None:
            why = f"{changed} changes while it runs, and is not in the copy; keep it in self"
            raise _not_copied(self._purpose, self._method, why)


def _not_copied(purpose: str, method: Method, why: str) -> Unsupported:
    name = type(method).__name__
    return Unsupported(f"{purpose} needs a method whose state can be copied; of {name}, {why}")


def put(method: Method, held: dict[str, Any]) -> None:
    """Replace all that a method holds."""
    vars(method).clear()
    vars(method).update(held)


def _shared_state(method: Method, copied: dict[str, Any]) -> tuple[str, str] | None:
    """An attribute whose copy still uses something mutable of the original, and its kind."""
    originals = {id(thing): thing for thing in reachable(dict(vars(method)), stop=method)}
    for name, value in copied.items():
        for thing in reachable(value, stop=method):
            if id(thing) in originals and _is_mutable(thing):
                return name, type(thing).__name__
    return None


def _is_mutable(thing: Any) -> bool:
    if isinstance(thing, _MUTABLE):
        return True
    if isinstance(thing, _SHARED) or hasattr(type(thing), "__get__"):  # functions: by their parts
        return False
    if isinstance(thing, pydantic.BaseModel) and thing.model_config.get("frozen"):
        return False
    return hasattr(thing, "__dict__") and not hasattr(type(thing), "__deepcopy__")
