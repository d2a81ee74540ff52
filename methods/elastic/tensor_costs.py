"""What each tensor adds to a backward pass: its own gradient, and the way to it.

Three backward passes over one batch tell it, for any network: with all tensors trained, with those
of one dimension alone, and with none, the input's gradient being asked for each time, so that the
chain is complete. At each node of the autograd graph, what is left in the last is the way (dy);
what the others add are the gradients of one-dimensional tensors, and of matrices (dw). The order is
the graph's. The parts of a node that several tensors share are split equally.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench import BenchError, FoundationModel
from bench.contracts.data import Inputs
from bench.costs.device_profile import ModelledDevice
from bench.costs.pricing import step_cost
from bench.costs.step_tracer import Log, StepTrace, StepTracer, tally

Quantity = Literal["operations", "bytes", "time", "energy"]
Price = Callable[[Log], float]


@dataclass(frozen=True)
class TensorCosts:
    """Costs of a step's passes, in one quantity.

    ``names``: of the tensors in the order of the backward pass, the output's first; ``dw``: of
    each one's gradient; ``before``: of the pass down to each, without it; ``forward``: of the
    forward pass; ``backward``: of the whole backward pass.
    """

    names: list[str]
    dw: list[float]
    before: list[float]
    forward: float

    @property
    def backward(self) -> float:
        """All gradients, and the way to the deepest."""
        return sum(self.dw) + self.before[-1]

    def predicted(self, chosen: Sequence[int]) -> float:
        """Cost of the backward pass that trains these, ascending indices."""
        return self.before[chosen[-1]] + sum(self.dw[k] for k in chosen) if chosen else 0.0


def tensor_costs(
    model: FoundationModel,
    x: Inputs,
    names: Sequence[str],
    quantity: Quantity = "operations",
    device: ModelledDevice | None = None,
    repeats: int = 5,
) -> TensorCosts:
    """Costs of training the parameters ``names`` of a model, on a batch ``x``.

    Operations and bytes are counted; time and energy are those of ``device``, modelled; without
    one the time is measured here, the lower quartile of ``repeats`` passes, and energy is a
    BenchError. Parameters that no gradient reaches have no costs and are left out. Weights,
    buffers, gradients and the state of torch's generator are afterwards what they were.
    """
    parameters = dict(model.module.named_parameters())
    chosen = [parameters[name] for name in names]
    flat = [p for p in chosen if p.dim() <= 1]
    with _kept(model.module):
        if quantity == "time" and device is None:
            passes = _timed(model, x, (chosen, flat, []), repeats)
        else:
            price = _price(quantity, device)
            passes = [_Pass.counted(model, x, trained, price) for trained in (chosen, flat, [])]
    return _told_apart(passes, dict(zip(map(id, chosen), names, strict=True)))


def _price(quantity: Quantity, device: ModelledDevice | None) -> Price:
    if quantity == "operations":
        return lambda log: sum(flops for _, (flops, _, _) in log)
    if quantity == "bytes":
        return lambda log: sum(size for _, (_, size, _) in log)
    if device is None:
        raise BenchError("cost: energy is that of a modelled device: name it by cost_device")
    known = device

    def price(log: Log) -> float:
        cost = step_cost(tally(StepTrace(), log), known)
        return cost.time_s if quantity == "time" else cost.energy_j

    return price


@dataclass
class _Pass:
    """Costs of one backward pass by node of the chain, the output's first, and the tensors there.

    A node's cost holds that of what lies between it and a tensor, such as a transposition.
    """

    kinds: list[str]
    costs: list[float]
    tensors: list[list[Tensor]]
    forward: float

    @classmethod
    def counted(
        cls, model: FoundationModel, x: Inputs, trained: Sequence[Tensor], price: Price
    ) -> _Pass:
        """Priced by what its operators do."""
        with StepTracer() as tracer:
            outputs = _forward(model, x, trained)
            forward = price(tracer.log)
            mark = len(tracer.log)

            def between() -> float:
                nonlocal mark
                begun, mark = mark, len(tracer.log)
                return price(tracer.log[begun:])

            return cls._over(outputs, forward, between)

    @classmethod
    def measured(cls, model: FoundationModel, x: Inputs, trained: Sequence[Tensor]) -> _Pass:
        """Timed on this machine, in CPU seconds of this process."""
        clock = time.process_time
        begun = clock()
        outputs = _forward(model, x, trained)
        forward = clock() - begun

        def between() -> float:
            nonlocal begun
            earlier, begun = begun, clock()
            return begun - earlier

        return cls._over(outputs, forward, between)

    @classmethod
    def _over(cls, outputs: list[Tensor], forward: float, between: Callable[[], float]) -> _Pass:
        """Run the backward pass; ``between`` gives the cost since it was called last."""
        chain, owner, tensors = _chain(outputs)
        costs = [0.0] * len(chain)
        handles = []
        for node, place in owner.items():

            def passed(*_: Any, place: int = place) -> None:
                # Before it too: where paths meet, their gradients are added between two nodes
                costs[place] += between()

            handles += [node.register_prehook(passed), node.register_hook(passed)]
        roots = [output for output in outputs if output.requires_grad]
        gradients = [torch.ones_like(root) for root in roots]
        between()
        try:
            torch.autograd.backward(roots, gradients)
        finally:
            for handle in handles:
                handle.remove()
        return cls([node.name() for node in chain], costs, tensors, forward)


def _timed(
    model: FoundationModel, x: Inputs, trained: Sequence[Sequence[Tensor]], repeats: int
) -> list[_Pass]:
    """The passes, interleaved ``repeats`` times after one that warms up: lower quartiles."""
    runs = [[_Pass.measured(model, x, each) for each in trained] for _ in range(repeats + 1)][1:]

    def lower(values: Sequence[float]) -> float:
        return sorted(values)[len(values) // 4]

    passes = []
    for same in zip(*runs, strict=True):
        costs = [lower(each) for each in zip(*(one.costs for one in same), strict=True)]
        forward = lower([one.forward for one in same])
        passes.append(_Pass(same[0].kinds, costs, same[0].tensors, forward))
    return passes


def _told_apart(passes: Sequence[_Pass], names: dict[int, str]) -> TensorCosts:
    whole, flat, none = passes
    if not whole.kinds == flat.kinds == none.kinds:
        raise BenchError(
            "the network's graph differs with what is trained, so that costs of its tensors "
            "cannot be told apart"
        )
    way = 0.0
    dw: dict[str, float] = {}
    before: dict[str, float] = {}
    for place, reached in enumerate(whole.tensors):
        for small, own in (
            (True, flat.costs[place] - none.costs[place]),
            (False, whole.costs[place] - flat.costs[place]),
        ):
            here = [names[id(t)] for t in reached if (t.dim() <= 1) == small and id(t) in names]
            for name in here:  # one that is used again is as deep as its last use
                dw[name] = dw.get(name, 0.0) + max(own, 0.0) / len(here)
                before[name] = way
        way += none.costs[place]
    if not dw:
        raise BenchError("no parameter that is trained gets a gradient from the model's outputs")
    order = sorted(dw, key=lambda name: before[name])
    return TensorCosts(order, [dw[n] for n in order], [before[n] for n in order], whole.forward)


def _forward(model: FoundationModel, x: Inputs, trained: Sequence[Tensor]) -> list[Tensor]:
    """The model's outputs, with a graph that reaches back to the input and to what is trained."""
    chosen = {id(p) for p in trained}
    for parameter in model.module.parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        parameter.grad = None  # a gradient that is there would be added to
    handles = [
        module.register_forward_hook(_add_input)
        for module in model.module.modules()
        if isinstance(module, nn.Embedding)
    ]
    handles.append(model.module.register_forward_pre_hook(_ask_of_images, with_kwargs=True))
    try:
        with torch.enable_grad():
            return _tensors(model(x))
    finally:
        for handle in handles:
            handle.remove()


def _ask_of_images(module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
    def asked(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point() and not value.requires_grad:
            return value.detach().requires_grad_()
        return value

    return tuple(map(asked, args)), {name: asked(value) for name, value in kwargs.items()}


def _add_input(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Whole numbers have no gradient: an input of zeros is added to what is made of them."""
    return output + torch.zeros_like(output).requires_grad_()


def _tensors(value: Any) -> list[Tensor]:
    """Tensors with a gradient in outputs of whatever form."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for each in value for tensor in _tensors(each)]
    return []


def _chain(outputs: Sequence[Tensor]) -> tuple[list[Any], dict[Any, int], list[list[Tensor]]]:
    """Nodes on the way to the input, in the order of the backward pass, and what belongs to each.

    The second result gives for every node the place of the chain's node that it belongs to: itself,
    or the one that it leads on from to a parameter. The third: parameters at each place.
    """
    reaches: dict[Any, bool] = {}
    kept: list[Any] = []  # wrappers of nodes are made anew unless held
    for root in outputs:
        _mark(root.grad_fn, reaches, kept)
    chain = sorted(
        (node for node, reached in reaches.items() if reached and not _is_leaf(node)),
        key=lambda node: -node._sequence_nr(),
    )
    owner: dict[Any, int] = {}
    tensors: list[list[Tensor]] = []
    for place, node in enumerate(chain):
        owner[node] = place
        found: list[Tensor] = []
        waiting = [n for n, _ in node.next_functions if n is not None and not reaches[n]]
        while waiting:
            side = waiting.pop()
            if side in owner:
                if _is_leaf(side) and owner[side] != place:
                    found.append(side.variable)  # a parameter that is used again, as a tied one
                continue
            owner[side] = place
            if _is_leaf(side):
                found.append(side.variable)
            waiting += [n for n, _ in side.next_functions if n is not None]
        found += [
            n.variable
            for n, _ in node.next_functions
            if n is not None and _is_leaf(n) and owner.get(n, place) != place
        ]  # a parameter that is used again
        tensors.append(found)
    return chain, owner, tensors


def _is_leaf(node: Any) -> bool:
    return hasattr(node, "variable")


def _mark(root: Any, reaches: dict[Any, bool], kept: list[Any]) -> None:
    """Whether a leaf that is no parameter lies behind each node."""
    waiting = [(root, False)]
    while waiting:
        node, seen = waiting.pop()
        if seen:
            following = [n for n, _ in node.next_functions if n is not None]
            reaches[node] = any(reaches[n] for n in following)
            continue
        if node in reaches:
            continue
        kept.append(node)
        if _is_leaf(node):
            reaches[node] = not isinstance(node.variable, nn.Parameter)
            continue
        reaches[node] = False
        waiting.append((node, True))
        waiting += [(n, False) for n, _ in node.next_functions if n is not None]


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    """Afterwards flags, gradients, buffers and random draws are what they were."""
    parameters = list(module.parameters())
    flags = [(p, p.requires_grad, p.grad) for p in parameters]
    buffers = [(b, b.detach().clone()) for b in module.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for parameter, flag, gradient in flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
