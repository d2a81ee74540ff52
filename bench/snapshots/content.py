"""What a method's behaviour depends on: all that it holds, its classes and the globals it may use.

Digests of it tell whether predicting or adapting changed anything, whatever way was taken: in
place, through ``.data``, through numpy or by assignment. State inside C objects (locks, queues,
files) is not seen, and then a part has no digest.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import random
import sys
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MethodType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contracts.data import DomainView, LazyInputs
from bench.contracts.method import Method
from bench.registry.code_files import is_installed

_BARE = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS = frozenset({dict, OrderedDict, list, tuple, set, frozenset, deque})
_NAMED = (type, ModuleType, property, staticmethod, classmethod)
_SORTS: dict[str, tuple[type, ...]] = {
    "plain": (
        type(None), bool, int, float, complex, str, bytes, range, slice, torch.dtype, torch.device,
        torch.layout, torch.memory_format, np.generic, np.dtype, CodeType,
    ),
    "named": _NAMED,
    "constant": (enum.Enum,),
    "draws": (torch.Generator, random.Random, np.random.Generator),
    "tensor": (Tensor,),
    "array": (np.ndarray,),
    "view": (DomainView,),
    "lazy": (LazyInputs,),
    "mapping": (Mapping,),
    "sequence": (list, tuple, deque, set, frozenset),
}  # fmt: skip
_CACHED = functools._lru_cache_wrapper
_VIEWED = ("_x", "_y", "_y_there")
"""What a view has of its data, which copies of it share."""


@functools.lru_cache(maxsize=4096)
def _sort(kind: type) -> str:
    """What things of a type are: they are looked at by the thousand, and it is slow to find out."""
    return next((sort for sort, types in _SORTS.items() if issubclass(kind, types)), "other")


def parts(thing: Any) -> Iterable[Any] | None:
    """What ``thing`` consists of, one level down; None if that cannot be seen.

    Functions consist of what their closures, defaults and attributes hold; a view of its order of
    samples, not of its data, which nothing may change; classes and modules of nothing.
    """
    kind: Any = type(thing)
    sort = _sort(kind)
    if sort in ("plain", "named", "constant", "draws"):
        return ()
    if sort == "tensor":
        return () if thing.grad_fn is not None or thing.grad is None else (thing.grad,)
    if sort == "array":
        return thing.tolist() if thing.dtype.hasobject else ()
    if sort == "view":
        return [value for name, value in vars(thing).items() if name not in _VIEWED]
    if sort == "lazy":
        return (thing.positions,)
    if sort == "mapping":
        return [*thing.keys(), *thing.values(), *_attributes(thing)]
    if sort == "sequence":
        return [*_ordered(thing), *_attributes(thing)]
    return _parts_of_code(thing)


def _parts_of_code(thing: Any) -> Iterable[Any] | None:
    """As `parts`, for functions, references to others, and objects of any class."""
    if isinstance(thing, FunctionType):
        cells = [c.cell_contents for c in thing.__closure__ or () if _filled(c)]
        return [*cells, *(thing.__defaults__ or ()), thing.__kwdefaults__, *vars(thing).values()]
    if isinstance(thing, MethodType):
        return (thing.__self__, thing.__func__)
    if isinstance(thing, BuiltinFunctionType):  # a list's append belongs to the list
        return (thing.__self__,)
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords)
    if isinstance(thing, weakref.ref):
        return (thing(),)
    if isinstance(thing, _CACHED):
        return None
    held = _attributes(thing)
    return held if held or hasattr(thing, "__dict__") else None


def _attributes(thing: Any) -> list[Any]:
    """Values of an object's ``__dict__`` and slots."""
    held = getattr(thing, "__dict__", {})
    if isinstance(thing, torch.nn.Module):
        held = {name: value for name, value in held.items() if name != "training"}
    found = [*chain.from_iterable(held.items())]
    kind: Any = type(thing)
    for name in _slots(kind):
        if hasattr(thing, name):
            found += (name, getattr(thing, name))
    return found


@functools.lru_cache(maxsize=4096)
def _slots(kind: type) -> tuple[str, ...]:
    """Names of the slots of a class and of those that it derives from."""
    found: list[str] = []
    for each in kind.__mro__:
        slots = vars(each).get("__slots__", ())
        found += (slots,) if isinstance(slots, str) else slots
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _ordered(thing: Any) -> list[Any]:
    """A sequence as it is; a set in an order that its content alone decides, as far as it can."""
    return sorted(thing, key=repr) if isinstance(thing, set | frozenset) else list(thing)


def reachable(root: Any, stop: Any = None) -> Iterator[Any]:
    """All things in ``root``, itself first, each once; what ``stop`` is and holds is left out."""
    waiting, seen = [root], {id(stop): stop}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        yield thing
        waiting.extend(parts(thing) or ())


@dataclass(frozen=True)
class Content:
    """Digests for comparison in this process.

    ``all``: of everything; None if something cannot be seen. ``settled``: but for the modes of
    modules, training or evaluation, which predicting may set. ``values``: of tensors and arrays.
    """

    all: bytes | None
    settled: bytes
    values: bytes


Read = dict[int, tuple[Any, bytes | None]]
"""Tensors and arrays by their identity, each with its content, see `_own_state`."""


def content_of(
    root: Any,
    stop: Any = None,
    enter: Callable[[Any], bool] | None = None,
    read: Read | None = None,
) -> Content:
    """Digests of what ``root`` holds.

    ``stop``, and things of which ``enter`` says no, count by their kind, not by what they hold.
    ``read``: what was read before, and what is read now.
    """
    read = {} if read is None else read
    told: list[str] = []
    values, known = hashlib.sha256(), True
    modes: list[bool] = []
    waiting, seen = [root], {id(stop): (0, stop)}
    while waiting:
        thing = waiting.pop()
        exact: Any = type(thing)
        # Names, numbers and empty containers are nine tenths of what a network of torch holds.
        if exact in _BARE:
            told.append(repr(thing))
            continue
        if exact in _CONTAINERS and not thing and not getattr(thing, "__dict__", None):
            told.append(exact.__name__)
            continue
        if id(thing) in seen:
            told.append(f"seen {seen[id(thing)][0]}")
            continue
        sort = _sort(exact)
        if sort == "plain":
            told.append(f"{exact.__name__}:{thing!r}")
            continue
        seen[id(thing)] = (len(seen), thing)
        entered = enter is None or enter(thing)
        held = parts(thing) if entered else ()
        own = _own_state(thing, read) if entered else b""
        known &= held is not None and own is not None
        kind = thing if sort == "named" else exact
        name = getattr(kind, "__qualname__", None) or getattr(kind, "__name__", kind)
        held = list(held or ())
        told.append(f"{name} {len(held)} {own.hex() if own else ''}")
        if isinstance(thing, torch.nn.Module):
            modes.append(thing.training)
        if sort in ("tensor", "array"):
            values.update(own or b"")
        waiting.extend(held)
    settled = hashlib.sha256("\n".join(told).encode(errors="surrogatepass")).digest()
    whole = hashlib.sha256(settled + bytes(modes)).digest() if known else None
    return Content(whole, settled, values.digest())


def _own_state(thing: Any, read: Read) -> bytes | None:
    """The content of a thing that its parts do not hold, in short; None if it cannot be read."""
    kind: Any = type(thing)
    sort = _sort(kind)
    if sort in ("tensor", "array"):
        if id(thing) not in read:
            read[id(thing)] = thing, _values_of(thing)
        return read[id(thing)][1]
    if sort not in ("draws", "other", "constant"):
        return b""
    if isinstance(thing, torch.Generator):
        return thing.get_state().numpy().tobytes()
    if isinstance(thing, random.SystemRandom):
        return b""  # it draws from the operating system, and keeps nothing
    if isinstance(thing, random.Random):
        return repr(thing.getstate()).encode()
    if isinstance(thing, np.random.Generator):
        return repr(thing.bit_generator.state).encode()
    if isinstance(thing, FunctionType):
        return thing.__code__.co_code
    return repr(thing).encode() if isinstance(thing, enum.Enum) else b""


@torch.no_grad()
def _values_of(tensor: Tensor | np.ndarray) -> bytes | None:
    """Digest of shape, type and bytes; None of tensors that have no bytes to read."""
    if isinstance(tensor, np.ndarray):
        return _digest(f"{tensor.dtype}{tensor.shape}", tensor)
    plain = tensor.detach()
    try:
        if plain.layout != torch.strided:
            plain = plain.to_dense()
        flat = plain.cpu().contiguous().reshape(-1)
        content = flat.view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError):
        return None
    return _digest(f"{tuple(tensor.shape)}{tensor.dtype}", content)


def _digest(kind: str, content: np.ndarray[Any, Any]) -> bytes:
    """Digest of an array's values, read where they lie: a copy takes as long as the digest."""
    digest = hashlib.sha256(kind.encode())
    try:
        digest.update(np.ascontiguousarray(content).data)
    except ValueError:  # dates, say, are in no format that can be read in place
        digest.update(content.tobytes())
    return digest.digest()


def held_content(method: Method) -> dict[str, Content]:
    """Digests of a method's attributes, by what they are of."""
    # The weights are in its model, its optimizer and whatever trains them: read them once.
    read: Read = {}
    return {
        f"attribute {name!r}": content_of(value, stop=method, read=read)
        for name, value in vars(method).items()
    }


def outside_content(method: Method) -> dict[str, Content]:
    """Digests of what a method may keep outside its object: in its classes and in globals.

    Globals: of the modules of its classes, and of the user's modules that these refer to.
    """
    found: dict[str, Content] = {}
    for name, value in _outside(type(method)):
        if name not in found:
            found[name] = content_of(value, stop=method, enter=_may_be_state)
    return found


def random_content() -> bytes:
    """State of the global generators: torch's, numpy's and Python's."""
    name, keys, *rest = np.random.get_state()
    sha = hashlib.sha256(f"{name}{rest}{hash(random.getstate())}".encode())
    sha.update(np.asarray(keys).tobytes())
    sha.update(torch.get_rng_state().numpy().tobytes())
    return sha.digest()


def changed_part(before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """The first part that is not what it was; else None."""
    names = dict.fromkeys((*before, *after))
    return next((n for n in names if before.get(n) != after.get(n)), None)


def _outside(method_class: type) -> Iterator[tuple[str, Any]]:
    """(what it is, value) of every class attribute and global that may hold state."""
    classes = [c for c in method_class.__mro__ if c is not object and c.__module__ != _CONTRACT]
    modules: dict[str, ModuleType] = {}
    for each in classes:
        yield from _values(f"class {each.__name__}", vars(each))
        _gather(sys.modules.get(each.__module__), modules)
    for name, module in modules.items():
        yield from _values(f"module {name}", vars(module))
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == name and value not in classes:
                yield from _values(f"class {value.__name__}", vars(value))


_CONTRACT = Method.__module__


def _values(owner: str, names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in list(names.items()):
        plain_code = isinstance(value, FunctionType) and not (value.__closure__ or vars(value))
        if name.startswith("__") or isinstance(value, _NAMED) or plain_code:
            continue
        if name != "_abc_impl" and "typing" not in type(value).__module__:
            yield f"{name!r} of {owner}", value


def _gather(module: ModuleType | None, found: dict[str, ModuleType]) -> None:
    """Add ``module`` and the user's modules that its globals are, or come from."""
    waiting = [module]
    while waiting:
        each = waiting.pop()
        if each is None or each.__name__ in found:
            continue
        found[each.__name__] = each
        for value in list(vars(each).values()):
            name = value.__name__ if isinstance(value, ModuleType) else _module_of(value)
            if isinstance(name, str) and _is_users(sys.modules.get(name)):
                waiting.append(sys.modules[name])


def _module_of(value: Any) -> Any:
    return value.__module__ if isinstance(value, type | FunctionType) else None


@functools.cache
def _is_users(module: ModuleType | None) -> bool:
    """Whether a module belongs to neither Python, nor an installed package, nor this one."""
    file = getattr(module, "__file__", None)
    if module is None or file is None or module.__name__.partition(".")[0] == _PACKAGE:
        return False
    return not is_installed(Path(file))


def _may_be_state(thing: Any) -> bool:
    """Whether a thing among globals may be learned state, and no other package's own business."""
    kind = type(thing).__module__
    return kind.partition(".")[0] in _DATA or _is_users(sys.modules.get(kind))


_DATA = ("builtins", "collections", "functools", "numpy", "torch", "random")
_PACKAGE = __name__.partition(".")[0]
