"""Checks of what a method may spend: the window's time, and memory that does not grow."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench import defaults
from bench.conformance.base import CheckFailed, check
from bench.conformance.behaviour import first_difference, weights
from bench.conformance.method_fixture import MethodFixture
from bench.contracts.data import Batch
from bench.contracts.method import Method
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import ChargedStep, CostTracker, StepObserver
from bench.errors import Unsupported
from bench.operators.live_memory import blocks_of, live_bytes
from bench.operators.operator_kinds import operator_class
from bench.run.window import UNLIMITED, Window

DEVICE = defaults.DEVICE
SAMPLES, SIZE, DOMAINS = 40, 8, 10
"""Of a domain, of a batch, and how many domains the check of memory takes: 50 batches."""


@check
def window(subject: MethodFixture) -> str:
    """Works inside charged steps alone, and ends when the window closes."""
    method = subject.prepare()
    whole, sections = _adapt(subject, method, 0, UNLIMITED)
    if not whole:
        if sections >= SAMPLES // SIZE:
            raise CheckFailed(
                f"takes no steps and {sections} sections, which no window ends: take batches from "
                "window.steps(...)"
            )
        return "adapted on 5 batches: it takes no steps"
    if len(whole) > 1:
        few = min(3, len(whole) - 1)
        budget = sum(whole[:few]) - whole[few - 1] / 2
        taken, _ = _adapt(subject, subject.prepare(), 0, budget)
        if len(taken) >= len(whole):
            raise CheckFailed(
                f"takes all {len(whole)} steps in a window of {budget:.3g} s that has room for "
                f"{few}: take them from window.steps(...)"
            )
    _adapt(subject, method, 1, min(whole) / 2)
    return f"adapted in {sum(whole):.3g} s on {DEVICE}, in a window for a few steps, and for none"


def _adapt(
    subject: MethodFixture, method: Method, domain: int, budget_s: float
) -> tuple[list[float], int]:
    """Adapt on five batches; the device seconds of each step, and the number of sections."""
    watch = _WeightWatch(method)
    tracker = make_tracker([load_device(DEVICE)], method.stored, observers=[watch])
    opened = Window(tracker, budget_s, None, lambda: method.model.module)
    try:
        with _FreeWork(tracker) as free:
            subject.adapt(method, subject.view(domain, samples=SAMPLES, batch_size=SIZE), opened)
    except Unsupported:
        if budget_s == UNLIMITED:
            raise
        return [], 0  # one section is longer than this window: refused, as it must be
    finally:
        tracker.close()
    tracker.finish()
    if tracker.uncounted:
        raise CheckFailed(
            f"not all of its work is counted: {', '.join(sorted(tracker.uncounted))}; compute in "
            "operators of torch, or its rows are marked as lower bounds"
        )
    changed = watch.changed
    if changed is None and watch.after:
        changed = first_difference(watch.after, weights(method))
    inside = "inside 'for batch in window.steps(...)' or 'with window.section(...)'"
    if changed is not None:
        raise CheckFailed(f"{changed} changes outside the steps: change it {inside}")
    if free.found:
        raise CheckFailed(f"computes outside the steps ({free.found[0]}): work {inside}")
    steps = [s.seconds[DEVICE] for s in watch.charged if s.kind not in watch.sections]
    return steps, len(watch.charged) - len(steps)


class _WeightWatch(StepObserver):
    """Watches the weights between the steps.

    ``charged``: steps and sections in their order; ``sections``: kinds of the latter; ``after``:
    weights after the last of them, or when the window opened; ``changed``: the first weight that
    changed between two of them.
    """

    def __init__(self, method: Method) -> None:
        self.charged: list[ChargedStep] = []
        self.sections: set[str] = set()
        self.after: dict[str, Tensor] = {}
        self.changed: str | None = None
        self._method = method

    def on_window(self) -> None:
        self.after = weights(self._method)

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        self._compare()

    def on_section(self, kind: str) -> None:
        self.sections.add(kind)
        self._compare()

    def on_step(self, step: ChargedStep) -> None:
        self.charged.append(step)
        self.after = weights(self._method)

    def _compare(self) -> None:
        now = weights(self._method)
        common = {name: tensor for name, tensor in self.after.items() if name in now}
        self.changed = self.changed or first_difference(common, {n: now[n] for n in common})


class _FreeWork(TorchDispatchMode):
    """Finds heavy operators that run while nothing is charged."""

    def __init__(self, tracker: CostTracker) -> None:
        super().__init__()
        self.found: list[str] = []
        self._tracker = tracker

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__
        heavy = operator_class(name) in ("matmul", "attention", "convolution")
        if not self._tracker.is_open and (heavy or name in ("linear", "matmul")):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@check
def memory(subject: MethodFixture) -> str:
    """What it keeps does not grow from batch to batch, or only declared replay memory does."""
    replays = "replay_memory" in subject.method_class.needs
    gc.freeze()  # what was there before is not looked at
    try:
        method = subject.prepare(SIZE)
        for number in range(DOMAINS):
            where = (number % 2, number * SAMPLES, SAMPLES)
            subject.adapt(method, subject.view(*where, batch_size=SIZE, single_pass=True))
            if number == 0:
                early = _Memory(method)
        late = _Memory(method)
    finally:
        gc.unfreeze()
    grown, shown = late.everywhere - early.everywhere, late.stored - early.stored
    batches = f"{(DOMAINS - 1) * SAMPLES // SIZE} batches"
    if not replays and max(grown, shown) > 0:
        raise CheckFailed(
            f"tensors of {max(grown, shown)} bytes more are alive after {batches}: keep none, or "
            "declare needs = ('replay_memory',)"
        )
    if not replays and late.values > early.values:
        raise CheckFailed(
            f"state() holds {late.values - early.values} values more after {batches}: what grows "
            "with the stream is replay memory; declare it or keep a running number"
        )
    if late.graph > early.graph:
        raise CheckFailed(
            f"keeps the graph of {late.graph - early.graph} more operations after {batches}: "
            "detach what is kept between steps"
        )
    if grown > shown:
        raise CheckFailed(
            f"tensors of {grown} bytes more are alive after {batches}, of which stored() shows "
            f"{shown}: keep clones instead of slices, and everything kept in stored()"
        )
    total = f"{DOMAINS * SAMPLES // SIZE} batches"
    return f"adapted on {total}; grew by {shown / 1e3:.1f} kB, all of them shown by stored()"


class _Memory:
    """How much is alive: bytes of tensors, operations in retained graphs, values in the state."""

    def __init__(self, method: Method) -> None:
        gc.collect()
        tensors = [x for x in gc.get_objects() if issubclass(type(x), Tensor)]
        self.everywhere = _bytes(tensors)
        self.stored = live_bytes(method.stored())  # arrays too, which gc does not know
        self.graph = _operations(tensors)
        self.values = _values(method.state())


def _bytes(tensors: Iterable[Tensor]) -> int:
    blocks = (block for tensor in tensors for block in blocks_of(tensor))
    return sum({block.key: block.size for block in blocks}.values())


def _operations(tensors: Iterable[Tensor]) -> int:
    seen: set[Any] = set()
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [earlier for earlier, _ in node.next_functions]
    return len(seen)


def _values(thing: Any) -> int:
    if isinstance(thing, Mapping):
        thing = list(thing.values())
    return sum(map(_values, thing)) if isinstance(thing, list | tuple) else 1
