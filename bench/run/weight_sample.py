"""Whether tensors changed, told from a few of their values: cheap enough for every step."""

from __future__ import annotations

import ctypes
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
        self._windows: dict[tuple[int, int], np.ndarray[Any, Any]] = {}

    def sample(self, tensors: Iterable[Tensor]) -> list[Sample]:
        """One sample of each tensor, in order."""
        windows: dict[tuple[int, int], np.ndarray[Any, Any]] = {}
        samples = []
        for tensor in tensors:
            version = 0 if tensor.is_inference() else tensor._version
            if type(tensor) not in _REAL:  # a fake tensor has no values
                samples.append((id(tensor), 0, 0, b""))
                continue
            if tensor.layout != torch.strided or not tensor.is_contiguous() or not tensor.is_cpu:
                samples.append((id(tensor), 0, version, _values(tensor)))
                continue
            key = (tensor.data_ptr(), tensor.numel() * tensor.element_size())
            window = self._windows.get(key)
            if window is None:
                window = _strided_bytes(*key, tensor.element_size())
            windows[key] = window
            samples.append((id(tensor), key[0], version, window.tobytes()))
        self._windows = windows  # those of memory that is gone are forgotten
        return samples


def module_tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


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
