"""A GPU that is not there: tensors of the CPU that say they are on CUDA, and refuse to mix.

Inside `tagged_gpu` what is moved to, or made on, ``cuda`` computes on the CPU, so that values are
those of a CPU, and carries a mark. An operator that is given marked and unmarked tensors raises
`MixedDevices`, as CUDA does, but for what CUDA allows too: numbers (tensors without dimensions)
and indices from the CPU. Numpy reads no marked tensor.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from bench.contracts import data

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class MixedDevices(AssertionError):
    """An operator was given tensors of the CPU and of the GPU."""


class _Marks:
    """Which storages are on the GPU."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Any]] = {}
        self.moved = 0

    def __contains__(self, tensor: Tensor) -> bool:
        storage = tensor.untyped_storage()
        known = self._known.get(storage._cdata)
        return known is not None and known() is not None

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._known[key] = weakref.ref(storage, lambda _: self._known.pop(key, None))
        return tensor


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


_MAY_MIX = {"copy_", "_to_copy", "set_", "detach", "alias"}
_INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}


class _Operators(TorchDispatchMode):
    """Marks what marked tensors give, and refuses mixtures."""

    def __init__(self, marks: _Marks) -> None:
        super().__init__()
        self._marks = marks
        self._neutral = _Marks()
        self.asked = False

    def _fits(self, tensor: Tensor) -> bool:
        """Whether a tensor may stand beside those on the GPU."""
        known = tensor in self._marks or tensor in self._neutral
        return known or tensor.ndim == 0 or tensor.numel() == 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = list(_tensors([args[0], *args[2:]] if name in _INDEXED else args))
        given += list(_tensors(kwargs))
        there = [t for t in given if t in self._marks]
        if there and name not in _MAY_MIX:
            here = [t for t in given if not self._fits(t)]
            if here:
                shapes = [tuple(t.shape) for t in here]
                raise MixedDevices(f"{func}: tensors of shape {shapes} are on the CPU")
        if name in _INDEXED and not there and any(t in self._marks for t in _tensors(args[1])):
            raise MixedDevices(f"{func}: an index on the GPU into a tensor on the CPU")
        if there and name not in _MAY_MIX:
            for tensor in given:
                if tensor in self._neutral:
                    self._marks.add(tensor)
        on_gpu = bool(there)
        if name == "copy_":
            on_gpu = args[0] in self._marks
        out = func(*args, **kwargs)
        if not given and not self.asked:  # made inside an operator, which would make it there
            for tensor in _tensors(out):
                self._neutral.add(tensor)
        if on_gpu:
            for tensor in _tensors(out):
                self._marks.add(tensor)
        return out


_FACTORIES_LIKE = {
    torch.zeros_like, torch.ones_like, torch.empty_like, torch.rand_like, torch.randn_like,
    torch.full_like, Tensor.new_zeros, Tensor.new_ones, Tensor.new_empty, Tensor.new_full,
    Tensor.new_tensor,
}  # fmt: skip


class _Functions(TorchFunctionMode):
    """Answers for the device of a tensor, moves tensors, and makes them where they are asked."""

    def __init__(self, marks: _Marks, operators: _Operators) -> None:
        super().__init__()
        self._marks, self.operators = marks, operators

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        self.operators.asked = next(_tensors([args, kwargs]), None) is None
        try:
            return self._call(func, args, kwargs)
        finally:
            self.operators.asked = False

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        getter = getattr(func, "__self__", None)
        if getter is Tensor.device:
            return CUDA if args[0] in self._marks else CPU
        if getter is Tensor.is_cuda:
            return args[0] in self._marks
        if getter is Tensor.is_cpu:
            return args[0] not in self._marks
        if func in (Tensor.numpy, Tensor.__array__) and args[0] in self._marks:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if func is Tensor.cpu:
            return self._away(args[0], CPU)
        if func is Tensor.to:
            return self._to(args, kwargs)
        device = kwargs.get("device")
        wanted = None if device is None else torch.device(device)
        if wanted is None or wanted.type != "cuda":
            if wanted is None and func in _FACTORIES_LIKE and args[0] in self._marks:
                return self._marks.add(func(*args, **kwargs))
            if wanted is not None and func in _FACTORIES_LIKE:  # the operator would be marked
                with _no_modes():
                    return func(*args, **kwargs)
            return func(*args, **kwargs)
        kwargs["device"] = CPU
        return self._marks.add(func(*args, **kwargs))

    def _to(self, args: Any, kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
        for given in rest:
            if isinstance(given, Tensor):
                device, dtype = CUDA if given in self._marks else CPU, given.dtype
            elif isinstance(given, torch.dtype):
                dtype = given
            elif isinstance(given, str | torch.device):
                device = given
        kwargs.pop("non_blocking", None)
        out = Tensor.to(tensor, dtype or tensor.dtype, **kwargs)
        return out if device is None else self._away(out, torch.device(device))

    def _away(self, tensor: Tensor, device: torch.device) -> Tensor:
        wanted = device.type == "cuda"
        if wanted == (tensor in self._marks):
            return tensor
        copied = _Moved.apply(tensor, self._marks) if wanted else _Fetched.apply(tensor)
        self._marks.moved += wanted
        return copied


class _Moved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, marks: _Marks) -> Any:
        with _no_modes():
            made = x.detach().clone()
        return marks.add(made)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        with _no_modes():
            return grad.detach().clone(), None


class _Fetched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        with _no_modes():
            return x.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise AssertionError("gradients flow back from the CPU to the GPU")


@contextmanager
def _no_modes() -> Iterator[None]:
    with torch._C.DisableTorchFunction(), _disable_current_modes():
        yield


@contextmanager
def tagged_gpu() -> Iterator[_Marks]:
    """``cuda`` can be used inside; what is said of it holds for one GPU."""
    marks = _Marks()
    seeds: list[int] = []
    fakes = {
        "init": lambda: None,
        "is_initialized": lambda: True,
        "is_available": lambda: False,  # asked by optimizers, who would ask for its streams
        "current_device": lambda: 0,
        "device_count": lambda: 1,
        "synchronize": lambda *_: None,
        "manual_seed_all": seeds.append,
        "get_rng_state": lambda *_: torch.zeros(1, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
        "get_device_name": lambda *_: "Made-up 9000",
        "reset_peak_memory_stats": lambda *_: None,
        "memory_allocated": lambda *_: 0,
        "max_memory_allocated": lambda *_: 3_000_000,
        "memory_reserved": lambda *_: 4_000_000,
        "max_memory_reserved": lambda *_: 5_000_000,
    }
    with ExitStack() as stack:
        for name, fake in fakes.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, fake))
        parse = torch._C._nn._parse_to

        def parse_to(*args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], Tensor):
                return CUDA if args[0] in marks else CPU, args[0].dtype, False, None
            return parse(*args, **kwargs)

        stack.enter_context(mock.patch.object(torch._C._nn, "_parse_to", parse_to))
        operators = _Operators(marks)
        stack.enter_context(operators)
        stack.enter_context(_Functions(marks, operators))
        hidden = partial(_alone, operators)
        stack.enter_context(mock.patch.object(data, "_disable_current_modes", hidden))
        yield marks


@contextmanager
def _alone(operators: _Operators) -> Iterator[None]:
    """No mode but this one: what is hidden from a tracer keeps its marks."""
    with _disable_current_modes(), operators:
        yield
