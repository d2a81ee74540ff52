"""What operators give on tensors without values, remembered by the shapes of their inputs.

Steps of a method do the same calls again and again. torch remembers them too
(``FakeTensorMode``), but looking one up takes it longer than all that is counted of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, in_kernel_invocation_manager

from bench.operators.call_sizes import WHOLE

WHOLE.add(FakeTensor)

_CPU = torch.device("cpu")
_CONSTANTS = frozenset({
    int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format,
})  # fmt: skip


class _Result(NamedTuple):
    """One tensor that a call gives.

    Attributes
    ----------
    argument : which of the call's tensors it is, or has the storage of; -1 for a new one
    is_argument : whether it is that tensor itself, as of an operator in place
    shape, stride, offset, dtype : of another one
    """

    argument: int
    is_argument: bool
    shape: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    offset: int = 0
    dtype: torch.dtype = torch.float32


class _Unknown(Exception):
    """A call depends on more than shapes and constants, or gives what cannot be made again."""


_Results = tuple[Any, list[_Result]]
"""The type of what is given, NoneType, list, tuple or that of a tensor; and the tensors."""


class RememberedResults:
    """The results of calls in a mode, made without asking torch again for what was asked before."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._known: dict[Any, _Results | None] = {}

    def of(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[object],
        kwargs: Mapping[str, object],
        ask: Callable[..., object],
    ) -> object:
        """What ``func`` gives; ``ask``: torch's own way, with the arguments before it."""
        try:
            key, tensors = _key(func, args, kwargs)
        except _Unknown:
            return ask(func, types, args, kwargs)
        found = self._known.get(key)
        if found is not None:
            kind, results = found
            made = [self._made(each, tensors) for each in results]
            return kind(made) if kind in (list, tuple) else made[0] if made else None
        given = ask(func, types, args, kwargs)
        if key not in self._known:
            try:
                # Not of what changes the shape of an argument, as unsqueeze_ does.
                same = _key(func, args, kwargs)[0] == key
                self._known[key] = _described(given, tensors) if same else None
            except _Unknown:
                self._known[key] = None
        return given

    def _made(self, result: _Result, tensors: Sequence[FakeTensor]) -> Tensor:
        if result.is_argument:
            return tensors[result.argument]
        is_view = result.argument >= 0
        with in_kernel_invocation_manager(self._mode):
            made = torch.empty_strided(
                () if is_view else result.shape,
                () if is_view else result.stride,
                dtype=result.dtype,
                device="meta",
            )
            if is_view:
                storage = tensors[result.argument].untyped_storage()
                made.set_(storage, result.offset, result.shape, result.stride)
        return FakeTensor(self._mode, made, _CPU)


def _key(
    func: Any, args: Sequence[object], kwargs: Mapping[str, object]
) -> tuple[tuple[object, ...], list[FakeTensor]]:
    """What the results depend on, and the tensors of the call; raises _Unknown."""
    parts: list[object] = [func]
    tensors: list[FakeTensor] = []
    _add(args, parts, tensors)
    for name, value in kwargs.items():
        parts.append(name)
        _add((value,), parts, tensors)
    return tuple(parts), tensors


def _add(values: Sequence[object], parts: list[object], tensors: list[FakeTensor]) -> None:
    """Add to ``parts`` what is known of arguments, constants with their types."""
    for value in values:
        kind = type(value)
        if kind is FakeTensor:
            tensor = cast(FakeTensor, value)
            dtype = tensor.dtype
            # One with a constant has a value, which the call may read or change.
            has_value = tensor.constant is not None
            if has_value or dtype.is_complex or tensor.layout is not torch.strided:
                raise _Unknown
            parts += (tensor.shape, tensor.stride(), tensor.storage_offset(), dtype)
            tensors.append(tensor)
        elif kind in _CONSTANTS:
            parts += (kind, value)
        elif kind is list or kind is tuple:
            several = cast(Sequence[object], value)
            parts.append(len(several))
            _add(several, parts, tensors)
        else:
            raise _Unknown


def _described(given: object, tensors: Sequence[FakeTensor]) -> _Results:
    """How to make ``given`` again."""
    kind = type(given)
    several = given if kind in (list, tuple) else [] if given is None else [given]
    return kind, [_one(each, tensors) for each in cast(Sequence[object], several)]


def _one(given: object, tensors: Sequence[FakeTensor]) -> _Result:
    if type(given) is not FakeTensor or given.layout is not torch.strided:
        raise _Unknown
    shape, stride, offset = tuple(given.shape), given.stride(), int(given.storage_offset())
    storage = given.untyped_storage()
    for i, tensor in enumerate(tensors):
        if tensor is given:
            return _Result(i, True)
        if tensor.untyped_storage()._cdata == storage._cdata:
            return _Result(i, False, shape, stride, offset, given.dtype)
    reach = sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1
    size = reach * given.element_size() if given.numel() else 0
    if offset or storage.nbytes() != size or given.fake_device != _CPU:
        raise _Unknown
    return _Result(-1, False, shape, stride, 0, given.dtype)
