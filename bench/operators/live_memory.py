"""What lies in memory: the tensors, arrays and packed weights that an object reaches, and bytes.

Memory is known in blocks: storages of tensors, buffers of numpy arrays, packed weights of quantized
layers, each counted once however many views there are of it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from bench.contracts.data import DomainView, LazyInputs


class Block(NamedTuple):
    """A piece of memory: what names it, its bytes, and the object that holds it."""

    key: int
    size: int
    owner: Any


_OPAQUE = (
    str, bytes, int, float, complex, type, type(None), FunctionType, BuiltinFunctionType,
    MethodType, ModuleType, DomainView, LazyInputs, torch.dtype, torch.device,
)  # fmt: skip
_PLAIN = frozenset(_OPAQUE) | {bool}
_CONTAINERS = frozenset({dict, OrderedDict, list, tuple, set, frozenset, deque})
_WAYS = (
    Tensor, *_OPAQUE, Mapping, list, tuple, set, frozenset, deque, np.ndarray, torch.ScriptObject,
)  # fmt: skip
SPARSE_PARTS = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def live_tensors(thing: Any) -> Iterator[Tensor]:
    """All tensors reachable, with gradients and optimizer state; not data in storage."""
    return (found for found in _walk(thing) if isinstance(found, Tensor))


def live_blocks(thing: Any) -> list[Block]:
    """All memory reachable, each block once; arrays that share a tensor's memory are left out."""
    blocks: dict[int, Block] = {}
    arrays: dict[int, NDArray[Any]] = {}
    for found in _walk(thing):
        if isinstance(found, np.ndarray):
            arrays[id(found)] = found
        elif isinstance(found, Tensor):
            blocks.update((block.key, block) for block in blocks_of(found))
        else:
            blocks[id(found)] = Block(id(found), packed_bytes(found), found)
    if arrays:
        # A storage made by torch.from_numpy lies where its array does.
        taken = {address_of(block.owner) for block in blocks.values()}
        blocks |= {
            key: Block(key, array.nbytes, array)
            for key, array in arrays.items()
            if address_of(array) not in taken
        }
    return list(blocks.values())


def live_bytes(thing: Any) -> int:
    """Bytes of all memory reachable."""
    return sum(block.size for block in live_blocks(thing))


def blocks_of(tensor: Tensor) -> list[Block]:
    """The memory of one tensor: its storage, or those of the parts that it consists of."""
    if tensor.layout is torch.strided and not is_traceable_wrapper_subclass(tensor):
        storage = tensor.untyped_storage()
        return [Block(storage._cdata, storage.nbytes(), storage)]
    return [block for part in strided_parts(tensor) for block in blocks_of(part)] or [
        Block(id(tensor), tensor.numel() * tensor.element_size(), tensor)
    ]


def strided_parts(tensor: Tensor) -> list[Tensor]:
    """What a sparse or wrapped tensor consists of; [] where that is hidden."""
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return [getattr(tensor, name) for name in names]
    if tensor.layout in SPARSE_PARTS:
        # Not .indices() and .values(), which refuse tensors that are not coalesced.
        return [getattr(tensor.detach(), part)() for part in SPARSE_PARTS[tensor.layout]]
    return [tensor] if tensor.layout is torch.strided else []


def address_of(owner: Any) -> int | None:
    """Where a storage or an array lies; None for what has no address."""
    if isinstance(owner, torch.UntypedStorage):
        return owner.data_ptr() if owner.device.type == "cpu" else None
    return int(owner.ctypes.data) if isinstance(owner, np.ndarray) else None


def packed_tensors(packed: Any) -> Sequence[Tensor]:
    """Copies of the tensors inside the packed weights of a quantized layer; empty if not known."""
    for read in ("unpack", "__getstate__"):
        try:
            return list(live_tensors(getattr(packed, read)()))
        except (AttributeError, NotImplementedError, RuntimeError):
            continue
    return []


def packed_bytes(packed: Any) -> int:
    """Bytes of packed weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in packed_tensors(packed))


def _buffer(array: NDArray[Any]) -> NDArray[Any]:
    """The array that owns the memory of another."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _worth_a_look(things: Iterable[Any]) -> list[Any]:
    """Without what is plain or an empty container, as most attributes of a module are."""
    # Without a call for each: models have thousands of attributes.
    return [
        thing
        for thing in list(things)
        if (kind := type(thing)) not in _PLAIN and (kind not in _CONTAINERS or thing)
    ]


_ways_into: dict[type, tuple[type | None, tuple[str, ...]]] = {}
"""What `_way_into` found."""


def _way_into(kind: type) -> tuple[type | None, tuple[str, ...]]:
    """How to look into objects of a class: as one of ``_WAYS``, else by attributes; its slots."""
    way = next((way for way in _WAYS if issubclass(kind, way)), None)
    named = (vars(base).get("__slots__", ()) for base in kind.__mro__)
    slots = [s for each in named for s in ((each,) if isinstance(each, str) else each)]
    return _ways_into.setdefault(kind, (way, tuple(slots)))


def _walk(thing: Any) -> Iterator[Any]:
    """All tensors, arrays in memory and packed weights reachable, each once."""
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        thing = waiting.pop()
        kind = type(thing)
        if kind in _PLAIN or id(thing) in seen:
            continue
        seen.add(id(thing))
        if kind is dict:  # first, because most are
            waiting += _worth_a_look(thing.values())
            continue
        way, slots = _ways_into.get(kind) or _way_into(kind)
        if way is Tensor:
            yield thing
            if thing.is_leaf and thing.grad is not None:
                waiting.append(thing.grad)
        elif way is Mapping:
            waiting += list(thing.values())
        elif way in _CONTAINERS:
            waiting += _worth_a_look(thing)
        elif way is np.ndarray:
            owner = _buffer(thing)
            if thing.dtype == object:
                waiting += list(thing.flat)
            elif isinstance(owner.base, Tensor):
                waiting.append(owner.base)
            elif not isinstance(owner, np.memmap):  # which lies on storage
                yield owner
        elif way is torch.ScriptObject:
            yield thing
        elif way is None:
            if isinstance(thing, torch.jit.ScriptModule):
                waiting += [*thing.parameters(), *thing.buffers()]
            if hasattr(thing, "__dict__"):
                waiting.append(vars(thing))
            waiting += [getattr(thing, slot, None) for slot in slots]
