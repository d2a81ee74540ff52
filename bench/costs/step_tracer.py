"""Count a real step: operations, bytes and live memory, read off the operators that run.

A torch dispatch mode sees every operator of the forward and backward pass and of the optimizer
after autograd and composite operators have been resolved, so the count is of what was computed,
with frozen layers and skipped gradients. It changes no result.

Conventions (so that a number can be checked by hand):

* a multiply-add is 2 operations (matrix products, attention, convolutions, decompositions: see
  `bench.operators.flop_formulas`); reductions and normalizations count 1 per input element, copies
  none, any other operator 1 per output element. An operator without a formula that is not known
  to do so little is named in ``uncounted``: the count is a lower bound then;
* bytes are the sizes of the tensors that an operator reads and writes, each once, as if nothing
  stayed in cache;
* views cost nothing; each other operator is one launch. Inside an optimizer step the calls of one
  operator over all parameters count as one launch, as with torch's multi-tensor ("foreach") kernels
  on an accelerator;
* live memory is the total size of the storages that exist at once: those the method stores, those
  of the step (batch, activations, gradients) and optimizer state. Scratch space inside a kernel is
  not seen;
* what does not pass torch's dispatcher in the thread that runs the step is not counted (numpy,
  other threads): see `bench.costs.unseen_work`.
"""

from __future__ import annotations

import time
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.operators.flop_formulas import products
from bench.operators.live_memory import (
    Block,
    address_of,
    blocks_of,
    live_blocks,
    packed_bytes,
    strided_parts,
)
from bench.operators.operator_kinds import OPTIMIZER, is_simple, operator_class, operator_kind

Operation = tuple[str, str, float, float]
"""(operator class, data type, operations, bytes) of one launch."""

Detail = tuple[str, str, str, float, float]
"""(operator kind, then as `Operation`) of one call, see `bench.operators.operator_kinds`."""


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
    uncounted : operators that do more than was counted, because no formula is known
    operators_s, counting_s : wall seconds of this machine inside the operators, and of counting
    """

    operations: Counter[Operation] = field(default_factory=Counter)
    peak_bytes: int = 0
    resident_bytes: int = 0
    details: Counter[Detail] = field(default_factory=Counter)
    uncounted: set[str] = field(default_factory=set)
    operators_s: float = field(default=0.0, compare=False)
    counting_s: float = field(default=0.0, compare=False)

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


_WHOLE = (Tensor, torch.nn.Parameter)
_GATHER = {"embedding", "index", "index_select", "gather"}
_FREE = {
    "_record_function_enter_new", "_record_function_exit", "empty", "empty_like", "empty_strided",
    "new_empty", "new_empty_strided", "detach", "_unsafe_view", "lift_fresh", "set_", "resize_",
    "alias",
}  # fmt: skip


Label = tuple[str, str, str, str]
"""Name, class, data type and kind of a call; or a name of ``_MARKS``."""

Numbers = tuple[float, float, int]
"""Operations and bytes of a call, and live memory when it has run, above the resident bytes."""

Log = list[tuple[Label, Numbers]]
_BEGIN, _BEGIN_CLOSURE, _END, DECLARED, _TAKEN = _MARKS = (
    "optimizer begins", "optimizer with a closure begins", "optimizer ends", "size declared",
    "memory taken",
)  # fmt: skip


def tally(trace: StepTrace, log: Log) -> StepTrace:
    """Count the calls of a log into ``trace``, which knows its resident bytes."""
    open_optimizers: list[dict[tuple[str, str], list[float]] | None] = []

    def leave() -> None:
        for (_, dtype), (flops, size) in (open_optimizers.pop() or {}).items():
            trace.operations[(OPTIMIZER, dtype, flops, size)] += 1

    for (name, kind, dtype, detail), (flops, size, live) in log:
        trace.peak_bytes = max(trace.peak_bytes, trace.resident_bytes + live)
        if name in _MARKS:
            if name in (_BEGIN, _BEGIN_CLOSURE):
                open_optimizers.append({} if name == _BEGIN else None)
            elif name == _END and open_optimizers:
                leave()
            continue
        merged = open_optimizers[-1] if open_optimizers else None
        if merged is not None:
            total = merged.setdefault((name, dtype), [0.0, 0.0])
            total[0] += flops
            total[1] += size
            trace.details[(OPTIMIZER, OPTIMIZER, dtype, flops, size)] += 1
        else:
            trace.operations[(kind, dtype, flops, size)] += 1
            trace.details[(detail, kind, dtype, flops, size)] += 1
    while open_optimizers:  # a step left by an exception
        leave()
    return trace


class StepTracer:
    """Counts one step into ``trace``; ``resident`` is in memory before it, see `live_blocks`.

    ``trace`` is complete when the step is over. ``above``: bytes above the resident ones that the
    step has taken so far, where counting begins in the middle of it.
    """

    def __init__(self, resident: Any = (), above: int = 0) -> None:
        started = time.perf_counter()
        self.trace = StepTrace()
        self.optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._live: dict[int, tuple[Any, int]] = {}
        self._arrays: set[int] = set()
        self._now = 0
        self._inherits = above > 0
        self.log: Log = []
        self._mode = _Mode(self)
        for block in live_blocks(resident):
            self._add_block(block)
            if not isinstance(block.owner, torch.UntypedStorage):
                self._arrays.add(address_of(block.owner) or 0)
        self.trace.resident_bytes = self.trace.peak_bytes = self._now
        self._now += above
        self.trace.counting_s = time.perf_counter() - started

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
        self._live.clear()
        tally(self.trace, self.log)

    def mark(self, name: str) -> None:
        """Note in the log what is no operator."""
        self._note((name, "", "", ""), 0.0, 0.0)

    def _note(self, label: Label, flops: float, size: float) -> None:
        self.log.append((label, (flops, size, self._now - self.trace.resident_bytes)))

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Account for one operator that has just run."""
        inputs = list(_tensors(args))
        if kwargs:
            inputs += _tensors(kwargs.values())
        outputs = list(_tensors((out,)))
        before = len(self._live)
        for tensor in inputs:
            self._add_live(tensor, self._inherits)
        for tensor in outputs:
            self._add_live(tensor)
        facts = _facts(func)
        if not facts.free:
            self._count(facts, func, args, kwargs, out, inputs, outputs)
        elif len(self._live) > before:
            self.mark(_TAKEN)

    def _count(
        self,
        facts: _Facts,
        func: Any,
        args: Any,
        kwargs: Any,
        out: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        name, kind = facts.name, facts.kind
        written = sum(map(_elements, outputs)) or sum(map(_elements, inputs))
        known = products(func, args, kwargs, out)
        if known is not None:
            flops = known
        elif kind == "copy":
            flops = 0.0
        elif kind in ("reduction", "normalisation"):
            flops = float(max(written, *map(_elements, inputs), 0))
        else:
            flops = float(written)
        if known is None and not facts.simple:
            self.trace.uncounted.add(f"operator {func.namespace}::{name}")
        if name in _GATHER:  # reads the chosen rows, not the whole table
            size = 2.0 * sum(map(_touched_bytes, outputs))
        else:
            distinct = {id(t): t for t in (*inputs, *outputs)}
            size = float(sum(map(_touched_bytes, distinct.values())))
        if func.namespace != "aten":
            size += sum(packed_bytes(x) for x in args if isinstance(x, torch.ScriptObject))
        dtype = _dtype_name(outputs or inputs)
        self._note((name, kind, dtype, operator_kind(name, args)), flops, size)

    def _enter_optimizer(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.optimizers.add(optimizer)
        # With a closure the step holds forward and backward passes: nothing is merged then.
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self.mark(_BEGIN if closure is None else _BEGIN_CLOSURE)

    def _exit_optimizer(self, *_: Any) -> None:
        self.mark(_END)

    def _add_live(self, tensor: Tensor, inherited: bool = False) -> None:
        """Follow a tensor's memory; ``inherited``: it was there and is in the total already."""
        if tensor.layout is torch.strided and type(tensor) in _WHOLE:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._live:
                self._add_block(Block(storage._cdata, storage.nbytes(), storage), inherited)
        else:
            for block in blocks_of(tensor):
                self._add_block(block, inherited)

    def _add_block(self, block: Block, inherited: bool = False) -> None:
        key, size, owner = block
        if key in self._live:
            return
        if self._arrays and address_of(owner) in self._arrays:
            return  # a tensor over an array that is counted

        def released(_: Any, key: int = key) -> None:
            gone = self._live.pop(key, None)
            if gone is not None:
                self._now -= gone[1]

        try:
            held: Any = weakref.ref(owner, released)
        except TypeError:
            held = owner  # packed weights: kept as long as the step
        self._live[key] = (held, size)
        self._now += 0 if inherited else size


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
        facts = _facts(func)
        if facts.prim:  # a fake tensor's way to its device: no work
            return func(*args, **kwargs)
        if facts.composite:
            # Under inference_mode composite operators such as linear arrive whole.
            with self:
                return func.decompose(*args, **kwargs)
        trace = self._tracer.trace
        begun = time.perf_counter()
        out = func(*args, **kwargs)
        ended = time.perf_counter()
        self._tracer.see(func, args, kwargs, out)
        trace.operators_s += ended - begun
        trace.counting_s += time.perf_counter() - ended
        return out


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is the same in all calls of an operator."""

    name: str
    kind: str
    free: bool
    prim: bool
    composite: bool
    simple: bool


@cache
def _facts(func: Any) -> _Facts:
    name = func.overloadpacket.__name__
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    prim = func.namespace == "prim"  # which the dispatcher does not know
    composite = (
        not prim
        and func.overloadpacket not in flop_registry
        and (
            implicit in func.py_kernels
            or torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), implicit)
        )
    )
    return _Facts(
        name=name,
        kind=operator_class(name),
        free=func.is_view or name in _FREE,
        prim=prim,
        composite=composite,
        simple=is_simple(func),
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among arguments or results, which operators take and give in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _elements(tensor: Tensor) -> int:
    if tensor.layout is torch.strided:
        return tensor.numel()
    return sum(part.numel() for part in strided_parts(tensor)) or tensor.numel()


def _touched_bytes(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return sum(block.size for block in blocks_of(tensor))
    size = tensor.numel() * tensor.element_size()
    return min(size, tensor.untyped_storage().nbytes())


def _dtype_name(tensors: Iterable[Tensor]) -> str:
    dtype = next((t.dtype for t in tensors if t.dtype.is_floating_point), torch.float32)
    return str(dtype).removeprefix("torch.")
