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

import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from bench.operators.call_sizes import (
    dtype_name,
    is_whole,
    per_element,
    tensors_in,
    touched_bytes,
)
from bench.operators.flop_formulas import Formula, formula_of, torch_formulas
from bench.operators.gpu_attention import is_gpu_attention, moved_tensors
from bench.operators.live_memory import (
    Block,
    address_of,
    blocks_of,
    live_blocks,
    packed_bytes,
)
from bench.operators.operator_kinds import (
    OPTIMIZER,
    depends_on_arguments,
    is_simple,
    operator_class,
    operator_kind,
)

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
    spared_s : seconds of counting that repeated work would have taken, see `RepeatedWork`
    """

    operations: Counter[Operation] = field(default_factory=Counter)
    peak_bytes: int = 0
    resident_bytes: int = 0
    details: Counter[Detail] = field(default_factory=Counter)
    uncounted: set[str] = field(default_factory=set)
    operators_s: float = field(default=0.0, compare=False)
    counting_s: float = field(default=0.0, compare=False)
    spared_s: float = field(default=0.0, compare=False)

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


Label = tuple[str, str, str, str]
"""Name, class, data type and kind of a call; or a name of ``_MARKS``."""

Numbers = tuple[float, float, int]
"""Operations and bytes of a call, and live memory when it has run, above the resident bytes."""

Log = list[tuple[Label, Numbers]]
_BEGIN, _BEGIN_CLOSURE, _END, DECLARED, _TAKEN = _MARKS = (
    "optimizer begins", "optimizer with a closure begins", "optimizer ends", "size declared",
    "memory taken",
)  # fmt: skip
TURNS = {_BEGIN, _BEGIN_CLOSURE, _END}
"""From here on calls are those of an optimizer, or no longer."""


def tally(
    trace: StepTrace, log: Iterable[tuple[Label, Sequence[float]]], times: Iterable[int] = repeat(1)
) -> StepTrace:
    """Count the calls of a log into ``trace``, which knows its resident bytes.

    ``times``: how often each of them was done.
    """
    open_optimizers: list[dict[tuple[str, str], list[float]] | None] = []
    highest = float(trace.peak_bytes - trace.resident_bytes)
    operations, details = trace.operations, trace.details

    def leave() -> None:
        for (_, dtype), (flops, size) in (open_optimizers.pop() or {}).items():
            operations[OPTIMIZER, dtype, flops, size] += 1

    for ((name, kind, dtype, detail), (flops, size, live)), n in zip(log, times, strict=False):
        if live > highest:
            highest = live
        if not kind:  # no call
            if name in (_BEGIN, _BEGIN_CLOSURE):
                open_optimizers.append({} if name == _BEGIN else None)
            elif name == _END and open_optimizers:
                leave()
            continue
        merged = open_optimizers[-1] if open_optimizers else None
        if merged is not None:
            total = merged.setdefault((name, dtype), [0.0, 0.0])
            total[0] += n * flops
            total[1] += n * size
            call = (OPTIMIZER, OPTIMIZER, dtype, flops, size)
        else:
            launch = (kind, dtype, flops, size)
            operations[launch] = operations.get(launch, 0) + n
            call = (detail, kind, dtype, flops, size)
        details[call] = details.get(call, 0) + n
    while open_optimizers:  # a step left by an exception
        leave()
    trace.peak_bytes = trace.resident_bytes + int(highest)
    return trace


class StepTracer:
    """Counts one step into ``trace``; ``resident`` is in memory before it, see `live_blocks`.

    ``trace`` is complete when the step is over. ``above``: bytes above the resident ones that the
    step has taken so far, where counting begins in the middle of it.
    """

    def __init__(self, resident: Any = (), above: int = 0) -> None:
        started = perf_counter()
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
        self.trace.counting_s = perf_counter() - started

    def __enter__(self) -> StepTracer:
        self._hooks = [
            register_optimizer_step_pre_hook(self._enter_optimizer),
            register_optimizer_step_post_hook(self._exit_optimizer),
        ]
        # One operator for a whole layer, in inference alone, would hide what it does.
        self._fast_path = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        # Compiled functions run as they are written: fused kernels would pass no dispatcher.
        self._stance = torch.compiler.set_stance("force_eager")
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)
        self._stance.__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self._fast_path)
        for hook in self._hooks:
            hook.remove()
        self._live.clear()
        tally(self.trace, self.log)

    @property
    def is_innermost(self) -> bool:
        """Whether operators come here first, no other mode having been entered since."""
        return _get_current_dispatch_mode() is self._mode

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Count nothing inside; only where this `is_innermost`."""
        place = len(self.log)
        self._mode.__exit__(None, None, None)
        try:
            yield
        finally:
            self._mode.__enter__()
            del self.log[place:]  # what optimizers marked

    def mark(self, name: str) -> None:
        """Note in the log what is no operator."""
        self._note((name, "", "", ""), 0.0, 0.0)

    def _note(self, label: Label, flops: float, size: float) -> None:
        self.log.append((label, (flops, size, self._now - self.trace.resident_bytes)))

    def see(
        self, facts: _Facts, args: tuple[Any, ...], kwargs: dict[str, Any] | None, out: Any
    ) -> None:
        """Account for one operator that has just run."""
        if facts.view and is_whole(out) and is_whole(args[0]):
            # Most calls are views: what such a call gives lies where its input does.
            if out.untyped_storage()._cdata not in self._live:
                self._add_live(out, self._inherits)
                self.mark(_TAKEN)
            return
        inputs = tensors_in(args, [])
        if kwargs:
            tensors_in(kwargs.values(), inputs)
        outputs = [out] if isinstance(out, Tensor) else tensors_in((out,), [])
        before = len(self._live)
        for tensor in inputs:
            self._add_live(tensor, self._inherits)
        for tensor in outputs:
            self._add_live(tensor)
        if not facts.free:
            self._count(facts, args, kwargs or {}, out, inputs, outputs)
        elif len(self._live) > before:
            self.mark(_TAKEN)

    def _count(
        self,
        facts: _Facts,
        args: Any,
        kwargs: Any,
        out: Any,
        inputs: list[Tensor],
        outputs: list[Tensor],
    ) -> None:
        name, kind = facts.name, facts.kind
        if facts.formula is not None:
            flops = facts.formula(args, kwargs, out)
        else:
            if not facts.simple:
                self.trace.uncounted.add(f"operator {facts.func.namespace}::{name}")
            flops = 0.0 if kind == "copy" else per_element(kind, inputs, outputs)
        if name in _GATHER:  # reads the chosen rows, not the whole table
            size = 2.0 * sum(map(touched_bytes, outputs))
        else:
            moved, more = list({id(t): t for t in (*inputs, *outputs)}.values()), 0.0
            if facts.gpu_attention:
                moved, more = moved_tensors(moved)
            size = more + float(sum(map(touched_bytes, moved)))
        if facts.packs:
            size += sum(packed_bytes(x) for x in args if isinstance(x, torch.ScriptObject))
        detail = operator_kind(name, args) if facts.several_kinds else name
        live = self._now - self.trace.resident_bytes
        label = (name, kind, dtype_name(outputs or inputs), detail)
        self.log.append((label, (flops, size, live)))

    def _enter_optimizer(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.optimizers.add(optimizer)
        _step_plainly(optimizer)
        # With a closure the step holds forward and backward passes: nothing is merged then.
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        self.mark(_BEGIN if closure is None else _BEGIN_CLOSURE)

    def _exit_optimizer(self, *_: Any) -> None:
        self.mark(_END)

    def _add_live(self, tensor: Tensor, inherited: bool = False) -> None:
        """Follow a tensor's memory; ``inherited``: it was there and is in the total already."""
        if is_whole(tensor):
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


def _step_plainly(optimizer: Optimizer) -> None:
    """Let an optimizer step parameter by parameter from now on.

    With multi-tensor kernels, torch's default on a GPU, the same arithmetic is other operators: a
    step would cost a device more for being computed on a GPU.
    """
    for group in optimizer.param_groups:
        chosen = [group.get("foreach"), group.get("fused")]
        if any(chosen) or (None in chosen and any(p.is_cuda for p in group["params"])):
            group.update({way: False for way in ("foreach", "fused") if way in group})


class _Mode(TorchDispatchMode):
    """Shows every operator to a tracer; composite ones are taken apart first."""

    def __init__(self, tracer: StepTracer) -> None:
        super().__init__()
        self._tracer, self._trace = tracer, tracer.trace

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not: nothing is compiled while counting, and torch's guard takes long in each call."""
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        facts = _FACTS.get(id(func)) or _learn(func)
        if facts.prim:  # a fake tensor's way to its device: no work
            return func(*args, **kwargs or {})
        if facts.composite:
            # Under inference_mode composite operators such as linear arrive whole.
            with self:
                return func.decompose(*args, **kwargs or {})
        begun = perf_counter()
        out = func(*args, **kwargs) if kwargs else func(*args)
        ended = perf_counter()
        self._tracer.see(facts, args, kwargs, out)
        trace = self._trace
        trace.operators_s += ended - begun
        trace.counting_s += perf_counter() - ended
        return out


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is the same in all calls of an operator."""

    func: Any
    name: str
    kind: str
    free: bool
    view: bool
    prim: bool
    composite: bool
    simple: bool
    several_kinds: bool
    packs: bool
    gpu_attention: bool
    formula: Formula | None


_FACTS: dict[int, _Facts] = {}
"""By the identity of the operator, which its facts keep alive: hashing one takes long."""


def _learn(func: Any) -> _Facts:
    name = func.overloadpacket.__name__
    implicit = torch._C.DispatchKey.CompositeImplicitAutograd
    prim = func.namespace == "prim"  # which the dispatcher does not know
    composite = (
        not prim
        and func.overloadpacket not in torch_formulas()
        and (
            implicit in func.py_kernels
            or torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), implicit)
        )
    )
    free = func.is_view or name in _FREE
    facts = _Facts(
        func=func,
        name=name,
        kind=operator_class(name),
        free=free,
        view=func.is_view,
        prim=prim,
        composite=composite,
        simple=is_simple(func),
        several_kinds=depends_on_arguments(name),
        packs=func.namespace != "aten",
        gpu_attention=is_gpu_attention(name),
        formula=None if free or prim or composite else formula_of(func),
    )
    return _FACTS.setdefault(id(func), facts)
