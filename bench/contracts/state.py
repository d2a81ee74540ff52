"""What a method has learned, as tensors and plain values that ``torch.save`` keeps safely."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel
from bench.errors import BenchError

_PLAIN = (bool, int, float, str, type(None))


def capture(values: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an object's attributes, for ``torch.save`` and a ``weights_only`` load.

    Modules and optimizers give their ``state_dict``, generators and views the state of their random
    order, tensors, arrays of numbers and containers (dict, list, tuple, deque) of plain values a
    copy. The settings
    (``config``) and references to a module's parameters hold no state of their own. Raises
    BenchError for anything else: such a method overrides `Method.state` and `Method.load_state`.
    """
    modules = [_module(v) for v in values.values() if isinstance(v, FoundationModel | nn.Module)]
    known = {id(parameter) for module in modules for parameter in module.parameters()}
    kept = {k: _capture(k, value, known) for k, value in values.items() if k != "config"}
    return {name: state for name, state in kept.items() if state is not None}


def restore(values: dict[str, Any], state: Mapping[str, Any]) -> None:
    """Put a captured state into the attributes of an object prepared alike, models in place.

    Raises BenchError, naming the attribute, where the state does not fit.
    """
    for name, (kind, kept) in state.items():
        if name not in values:
            raise BenchError(
                f"state of {name!r}: the prepared method has no such attribute; make it in "
                "prepare, or override state() and load_state()"
            )
        try:
            _restore(values, name, kind, kept)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BenchError(
                f"state of {name!r} does not fit this method: {error}; prepare the method on the "
                "same model with the same settings first"
            ) from error


def _restore(values: dict[str, Any], name: str, kind: str, kept: Any) -> None:
    current = values[name]
    if kind == "module":
        _module(current).load_state_dict(kept)
    elif kind == "optimizer":
        current.load_state_dict(copy.deepcopy(kept))
    elif kind == "generator":
        current.set_state(kept)
    elif kind == "view":
        current.rng_state = kept
    elif kind == "parameters":
        for parameter, learned in zip(_leaves(current), kept, strict=True):
            if parameter.shape != learned.shape:
                raise ValueError(f"shape {tuple(learned.shape)}, not {tuple(parameter.shape)}")
            with torch.no_grad():
                parameter.copy_(learned)
    elif kind == "array":
        values[name] = kept.numpy().copy()
    elif kind == "deque":
        maxlen, items = kept
        values[name] = deque(_copied(items), maxlen)
    else:
        values[name] = _copied(kept)


def _module(value: Any) -> nn.Module:
    return value.module if isinstance(value, FoundationModel) else value


def _capture(name: str, value: Any, known: set[int]) -> tuple[str, Any] | None:
    """Kind and content of one attribute's state; ``known``: parameters that modules hold."""
    if isinstance(value, FoundationModel | nn.Module):
        return "module", copy.deepcopy(_module(value).state_dict())
    if isinstance(value, torch.optim.Optimizer):
        return "optimizer", copy.deepcopy(value.state_dict())
    if isinstance(value, torch.Generator):
        return "generator", value.get_state()
    if isinstance(value, DomainView):
        return "view", value.rng_state
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return "array", torch.from_numpy(value.copy())
    leaves = list(_leaves(value))
    if leaves and all(_is_parameter(leaf) for leaf in leaves):
        held = all(id(leaf) in known for leaf in leaves)
        return None if held else ("parameters", _copied(leaves))
    for leaf in leaves:
        if _is_parameter(leaf):
            raise BenchError(
                f"attribute {name!r} holds parameters among other values, which cannot be put "
                "back in place: keep them apart, or override state() and load_state()"
            )
        # Exact types: numpy's float64 is a float, but no weights_only load reads it.
        if not isinstance(leaf, Tensor) and type(leaf) not in _PLAIN:
            raise BenchError(
                f"attribute {name!r} holds a {type(leaf).__name__}, whose state cannot be saved: "
                "override state() and load_state()"
            )
    if type(value) is deque:
        return "deque", (value.maxlen, _copied(list(value)))
    return "value", _copied(value)


def _is_parameter(leaf: Any) -> bool:
    """Whether others, an optimizer say, may refer to this tensor to train it."""
    return isinstance(leaf, Tensor) and (
        isinstance(leaf, nn.Parameter) or (leaf.is_leaf and leaf.requires_grad)
    )


def _leaves(value: Any, inner: bool = False) -> Iterator[Any]:
    """What containers hold; other kinds of containers, and a deque in one, are leaves."""
    if type(value) is dict:
        for item in value.values():
            yield from _leaves(item, True)
    elif type(value) in (list, tuple) or (type(value) is deque and not inner):
        for item in value:
            yield from _leaves(item, True)
    else:
        yield value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value
