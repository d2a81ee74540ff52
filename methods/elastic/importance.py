"""How much each tensor's training lowers the loss, to first order: read off an ordinary step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

Importance = Literal["taylor", "two-pass", "weight", "gradient", "uniform", "random"]


class Probe:
    """Watches an optimizer's step over ``parameters`` of a module, by name.

    With ``undone`` it can be put back: weights, buffers and the optimizer's state.
    """

    def __init__(
        self, module: nn.Module, parameters: Mapping[str, nn.Parameter], undone: bool = False
    ) -> None:
        self._names = {id(p): name for name, p in parameters.items()}
        self._parameters = parameters
        self._undone = undone
        self._buffers = [(b, b.detach().clone()) for b in module.buffers()] if undone else []
        self._optimizers: list[tuple[Optimizer, dict[str, Any]]] = []
        self._before: dict[str, Tensor] = {}
        self._change: dict[str, Tensor] = {}
        self._gradient: dict[str, Tensor] = {}

    @contextmanager
    def first(self) -> Iterator[None]:
        """Inside, an ordinary step is watched."""

        def begins(optimizer: Optimizer, *_: Any) -> None:
            if self._undone:
                self._optimizers.append((optimizer, copy.deepcopy(optimizer.state_dict())))
            for name, p in self._of(optimizer):
                self._before[name] = p.detach().clone()
            self._note_gradients(optimizer)

        def ends(optimizer: Optimizer, *_: Any) -> None:
            for name, p in self._of(optimizer):
                self._change[name] = p.detach() - self._before[name]

        with _hooks(begins, ends):
            yield

    @contextmanager
    def second(self) -> Iterator[None]:
        """Inside, the gradients of another step on the same batch are noted."""
        with _hooks(lambda optimizer, *_: self._note_gradients(optimizer)):
            yield

    def undo(self) -> None:
        """Put back what both steps changed."""
        with torch.no_grad():
            for name, value in self._before.items():
                self._parameters[name].copy_(value)
            for buffer, value in self._buffers:
                buffer.copy_(value)
        for optimizer, state in self._optimizers:
            optimizer.load_state_dict(state)

    def importance(self, kind: Importance) -> dict[str, Tensor]:
        """A scalar for each tensor that the step trained, by name.

        ``taylor``: -g dw, summed over the tensor, g the gradient and dw the change of the step;
        ``two-pass``: the same with the gradient of the second step, as published; ``weight``: the
        sum of |w|; ``gradient``: of |g|; ``uniform``: 1; ``random``: draws of torch's global
        generator.
        """

        def taylor(name: str) -> Tensor:
            return -(self._gradient[name] * self._change[name]).sum()

        rules: dict[str, Callable[[str], Tensor]] = {
            "taylor": taylor,
            "two-pass": taylor,
            "weight": lambda n: self._before[n].abs().sum(),
            "gradient": lambda n: self._gradient[n].abs().sum(),
            "uniform": lambda _: torch.ones(()),
            "random": lambda _: torch.rand(()),
        }
        return {name: rules[kind](name) for name in self._change}

    def _note_gradients(self, optimizer: Optimizer) -> None:
        for name, p in self._of(optimizer):
            assert p.grad is not None
            self._gradient[name] = p.grad.detach()

    def _of(self, optimizer: Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
        """The watched parameters that this optimizer is about to change."""
        for group in optimizer.param_groups:
            for p in group["params"]:
                if id(p) in self._names and p.grad is not None:
                    yield self._names[id(p)], p


@contextmanager
def _hooks(before: Callable[..., None], after: Callable[..., None] | None = None) -> Iterator[None]:
    handles = [register_optimizer_step_pre_hook(before)]
    if after is not None:
        handles.append(register_optimizer_step_post_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
