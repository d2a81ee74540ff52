"""The tensors of an operator's call, and how large what it touches is."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from bench.operators.live_memory import blocks_of, strided_parts

WHOLE: set[type] = {Tensor, torch.nn.Parameter}
"""Kinds of tensors with a storage of their own; tensors without values are added where they are
made."""
_NUMBERS = frozenset({int, float, bool})
_NO_TENSOR = _NUMBERS | {type(None), str, torch.dtype}


def is_whole(value: Any) -> bool:
    """Whether it is a tensor with one storage of its own kind: not sparse, wrapped or packed."""
    return type(value) in WHOLE and value.layout is torch.strided


def tensors_in(values: Iterable[Any], found: list[Tensor]) -> list[Tensor]:
    """``found`` with those among arguments or results, which operators take and give in lists."""
    for value in values:
        kind = type(value)
        if kind is Tensor or kind in _NO_TENSOR:
            if kind is Tensor:
                found.append(value)
        elif kind is list or kind is tuple:
            if value and type(value[0]) not in _NUMBERS:  # lists are of one type
                tensors_in(value, found)
        elif isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            tensors_in(value, found)
    return found


def per_element(kind: str, inputs: list[Tensor], outputs: list[Tensor]) -> float:
    """One operation for each element that is written, or read where a sum is made of them."""
    written = sum(map(_elements, outputs)) or sum(map(_elements, inputs))
    if kind in ("reduction", "normalisation"):
        return float(max(written, *map(_elements, inputs), 0))
    return float(written)


def _elements(tensor: Tensor) -> int:
    if tensor.layout is torch.strided:
        return tensor.numel()
    return sum(part.numel() for part in strided_parts(tensor)) or tensor.numel()


def touched_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor, each entry once although a view may repeat it."""
    if tensor.layout is not torch.strided:
        return sum(block.size for block in blocks_of(tensor))
    size = tensor.nbytes
    return size if tensor.is_contiguous() else min(size, tensor.untyped_storage().nbytes())


def dtype_name(tensors: Iterable[Tensor]) -> str:
    """The type of the first floating-point tensor, as "bfloat16"."""
    for tensor in tensors:
        if tensor.dtype.is_floating_point:
            return _name_of(tensor.dtype)
    return "float32"


@cache
def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
