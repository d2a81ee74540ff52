"""Whether tensors changed, told from a few of their values: cheap enough for every step."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

VALUES = 16
"""About as many values of a tensor are looked at: training changes all of them, or most."""

Sample = tuple[int, int, int, bytes]
_REAL = (Tensor, nn.Parameter, nn.Buffer)


class WeightSampler:
    """Takes samples of tensors that differ where the tensors were changed.

    A sample has the tensor's identity, its address, its count of in-place changes and some of its
    values. Changes through ``.data``, numpy or another tensor on the same memory do not count as
    in-place changes: the values show them.
    """

    def __init__(self) -> None:
        self._last: dict[int, _Place] = {}

    def sample(self, tensors: Iterable[Tensor]) -> list[Sample]:
        """One sample of each tensor, in order."""
        last, self._last = self._last, {}  # places of memory that is gone are forgotten
        return [self._sample(tensor, last) for tensor in tensors]

    def _sample(self, tensor: Tensor, last: dict[int, _Place]) -> Sample:
        key = id(tensor)
        place = last.get(key)
        if place is None or not place.holds(tensor):
            if type(tensor) not in _REAL:  # a fake tensor has no values
                return key, 0, 0, b""
            strided = tensor.layout == torch.strided
            if tensor.is_inference() or not (strided and tensor.is_contiguous() and tensor.is_cpu):
                version = 0 if tensor.is_inference() else tensor._version
                return key, 0, version, _values(tensor)
            place = _Place(tensor)
        self._last[key] = place
        return key, place.address, tensor._version, place.elements.tobytes()


class _Place:
    """Where a contiguous tensor lies, and a view of some elements there.

    The view does not keep the memory alive: it is read only while a tensor is there.
    """

    __slots__ = ("_tensor", "address", "elements", "numel")

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = weakref.ref(tensor)
        self.address, self.numel = tensor.data_ptr(), tensor.numel()
        self.elements = _strided_bytes(self.address, tensor.nbytes, tensor.element_size())

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is this tensor's still, whose memory may have been exchanged."""
        return (
            self._tensor() is tensor
            and tensor.data_ptr() == self.address
            and tensor.numel() == self.numel
        )


def module_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers, each once; without the names, whose making takes most of the time."""
    tensors: dict[int, Tensor] = {}
    seen: set[int] = set()
    waiting: list[nn.Module | None] = [module]
    while waiting:
        inner = waiting.pop()
        if inner is None or id(inner) in seen:
            continue
        seen.add(id(inner))
        for tensor in (*inner._parameters.values(), *inner._buffers.values()):
            if tensor is not None:
                tensors[id(tensor)] = tensor
        waiting += inner._modules.values()
    return list(tensors.values())


def _strided_bytes(address: int, size: int, element: int) -> np.ndarray[Any, Any]:
    """A view of some elements of a tensor's memory that does not keep that memory alive.

    It is read only while a tensor is there.
    """
    if size == 0:
        return np.empty(0, np.uint8)
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
    elements = memory.reshape(-1, element)
    return elements[:: max(len(elements) // VALUES, 1)]


def _values(tensor: Tensor) -> bytes:
    """Some values of a tensor that has gaps, or is not in this machine's memory."""
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return b""
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(len(flat) // VALUES, 1)].cpu().contiguous()
    return some.view(torch.uint8).numpy().tobytes()
