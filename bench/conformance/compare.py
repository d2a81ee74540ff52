"""Bit-for-bit comparison of what methods hold and predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts.method import Method
from bench.contracts.model import FoundationModel


def same(a: Any, b: Any) -> bool:
    """Whether two tensors, or two containers of tensors and plain values, are equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (a.shape, a.dtype) == (b.shape, b.dtype) and torch.equal(_bits(a), _bits(b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b or (a != a and b != b))


def first_difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """The first key whose values are not the same, or that only one has; else None."""
    for key in (*a, *b):
        if key not in a or key not in b or not same(a[key], b[key]):
            return key
    return None


def weights(method: Method) -> dict[str, Tensor]:
    """Copies of the parameters and buffers of every model that a method holds, by name."""
    found: dict[str, Tensor] = {}
    for attribute, value in vars(method).items():
        module = value.module if isinstance(value, FoundationModel) else value
        if isinstance(module, nn.Module):
            for name, tensor in module.state_dict().items():
                found[f"{attribute}.{name}"] = tensor.detach().clone()
    return found


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
