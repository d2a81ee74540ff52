"""Count a real step: operations, bytes and live memory, read off the operators that run.

A torch dispatch mode sees every operator of the forward and backward pass and of the optimizer
after autograd and composite operators have been resolved, so the count is of what was computed,
with frozen layers and skipped gradients. It changes no result.

Conventions (so that a number can be checked by hand):

* a multiply-add is 2 operations (matrix products, attention, convolutions: see
  `bench.costs.flop_formulas`); reductions and normalizations count 1 per input element, copies
  none, any other operator 1 per output element;
* bytes are the sizes of the tensors that an operator reads and writes, each once, as if nothing
  stayed in cache;
* views cost nothing; each other operator is one launch. Inside an optimizer step the calls of one
  operator over all parameters count as one launch, as with torch's multi-tensor ("foreach") kernels
  on an accelerator;
* live memory is the total size of the storages that exist at once: those the method stores, those
  of the step (batch, activations, gradients) and optimizer state. Scratch space inside a kernel is
  not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.contracts.data import DomainView
from bench.costs.flop_formulas import products
from bench.costs.operator_kinds import OPTIMIZER, operator_class, operator_kind

Operation = tuple[str, str, float, float]
"""(operator class, data type, operations, bytes) of one launch."""

Detail = tuple[str, str, str, float, float]
"""(operator kind, then as `Operation`) of one call, see `bench.costs.operator_kinds`."""


@dataclass
class StepTrace:
    """What one step did.

    Attributes
    ----------
    operations : how often each (class, data type, operations, bytes) was launched
    peak_bytes : largest total of live storages during the step
    resident_bytes : what the method kept in memory when the step began
    details : the calls by kind, for calibrated profiles; those inside an optimizer's step one by
        one, as they run on the machine that counts
    """

    operations: Counter[Operation] = field(default_factory=Counter)
    peak_bytes: int = 0
    resident_bytes: int = 0
    details: Counter[Detail] = field(default_factory=Counter)

    @property
    def flops(self) -> float:
        """Arithmetic operations of the step."""
        return sum(flops * n for (_, _, flops, _), n in self.operations.items())

    @property
    def bytes(self) -> float:
        """Bytes read and written by the step."""
        return sum(size * n for (_, _, _, size), n in self.operations.items())

    @property
    def launches(self) -> int:
        """Kernels launched by the step."""
        return self.operations.total()


_GATHER = {"embedding", "index", "index_select", "gather"}
_FREE = {
    "_record_function_enter_new", "_record_function_exit", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided", "detach", "_unsafe_view", "lift_fresh", "set_", "resize_",
    "alias",
}  # fmt: skip


class StepTracer:
    """Counts one step into ``trace``; ``resident`` is in memory before it, see `live_tensors`."""

    def __init__(self, resident: Any = ()) -> None:
        self.trace = StepTrace()
        self.optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._live: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._now = 0
        self._optimizers: list[dict[tuple[str, str], list[float]] | None] = []
        self._mode = _Mode(self)
        for tensor in live_tensors(resident):
            self._add_live(tensor)
        self.trace.resident_bytes = self._now

    def __enter__(self) -> StepTracer:
        self._hooks = [
            register_optimizer_step_pre_hook(self._enter_optimizer),
            register_optimizer_step_post_hook(self._exit_optimizer),
        ]
        # One operator for a whole layer, in inference alone, would hide what it does.
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        for hook in self._hooks:
            hook.remove()
        while self._optimizers:  # a step left by an exception
            self._exit_optimizer()
        self._live.clear()

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Account for one operator that has just run."""
        packet = func.overloadpacket
        inputs = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outputs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        for tensor in (*inputs, *outputs):
            self._add_live(tensor)
        if not (func.is_view or packet.__name__ in _FREE):
            self._count(packet, args, kwargs, out, inputs, outputs)

    def _count(
        self, packet: Any, args: Any, kwargs: Any, out: Any, inputs: list[Any], outputs: list[Any]
    ) -> None:
        name = packet.__name__
        written = sum(t.numel() for t in outputs) or sum(t.numel() for t in inputs)
        kind = operator_class(name)
        known = products(packet, kind, args, kwargs, out)
        if known is not None:
            flops = known
        elif kind == "copy":
            flops = 0.0
        elif kind in ("reduction", "normalisation"):
            flops = float(max(written, *(t.numel() for t in inputs), 0))
        else:
            flops = float(written)
        if name in _GATHER:  # reads the chosen rows, not the whole table
            size = 2.0 * sum(_touched_bytes(t) for t in outputs)
        else:
            distinct = {id(t): t for t in (*inputs, *outputs)}
            size = float(sum(_touched_bytes(t) for t in distinct.values()))
        dtype = _dtype_name(outputs or inputs)
        merged = self._optimizers[-1] if self._optimizers else None
        if merged is not None:
            total = merged.setdefault((name, dtype), [0.0, 0.0])
            total[0] += flops
            total[1] += size
            self.trace.details[(OPTIMIZER, OPTIMIZER, dtype, flops, size)] += 1
        else:
            self.trace.operations[(kind, dtype, flops, size)] += 1
            self.trace.details[(operator_kind(name, args), kind, dtype, flops, size)] += 1

    def _enter_optimizer(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.optimizers.add(optimizer)
        # With a closure the step holds forward and backward passes: nothing is merged then.
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self._optimizers.append({} if closure is None else None)

    def _exit_optimizer(self, *_: Any) -> None:
        merged = self._optimizers.pop() if self._optimizers else None
        for (_name, dtype), (flops, size) in (merged or {}).items():
            self.trace.operations[("optimiser", dtype, flops, size)] += 1

    def _add_live(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        size = storage.nbytes()

        def released(_: Any, key: int = key) -> None:
            gone = self._live.pop(key, None)
            if gone is not None:
                self._now -= gone[1]

        self._live[key] = (weakref.ref(storage, released), size)
        self._now += size
        self.trace.peak_bytes = max(self.trace.peak_bytes, self._now)


class _Mode(TorchDispatchMode):
    """Shows every operator to a tracer; composite ones are taken apart first."""

    def __init__(self, tracer: StepTracer) -> None:
        super().__init__()
        self._tracer = tracer

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a fake tensor's way to its device: no work
            return func(*args, **kwargs)
        if func.overloadpacket not in flop_registry:
            # Under inference_mode composite operators such as linear arrive whole.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._tracer.see(func, args, kwargs, out)
        return out


def _touched_bytes(tensor: Tensor) -> int:
    size = tensor.numel() * tensor.element_size()
    return min(size, tensor.untyped_storage().nbytes())


def _dtype_name(tensors: Iterable[Tensor]) -> str:
    dtype = next((t.dtype for t in tensors if t.dtype.is_floating_point), torch.float32)
    return str(dtype).removeprefix("torch.")


_OPAQUE = (
    str, bytes, int, float, type, type(None), FunctionType, BuiltinFunctionType, MethodType,
    ModuleType, DomainView,
)  # fmt: skip


def live_tensors(thing: Any, _seen: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors reachable, with gradients and optimizer state; not those of views, in storage."""
    seen = set() if _seen is None else _seen
    if id(thing) in seen or isinstance(thing, _OPAQUE):
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
        if thing.is_leaf and thing.grad is not None:
            yield thing.grad
    elif isinstance(thing, Mapping | list | tuple | set | frozenset | deque):
        for value in list(thing.values() if isinstance(thing, Mapping) else thing):
            yield from live_tensors(value, seen)
    else:
        if hasattr(thing, "__dict__"):
            yield from live_tensors(vars(thing), seen)
        for kind in type(thing).__mro__:
            slots = vars(kind).get("__slots__", ())
            for slot in (slots,) if isinstance(slots, str) else slots:
                yield from live_tensors(getattr(thing, slot, None), seen)
