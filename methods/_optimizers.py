"""The optimizers and learning-rate schedules that the methods' papers use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn

from bench import DomainView

OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "decay"]
OptimizerState = Literal["new", "kept"]
"""What an optimizer knows (its momentum, Adam's averages) at the start of an adaptation: nothing,
or what it knew at the end of the one before."""


def make_optimizer(
    name: OptimizerName,
    parameters: Sequence[nn.Parameter] | Sequence[dict[str, Any]],
    learning_rate: float,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """An optimizer over parameters, or over groups of them that may have a rate (``lr``) each.

    ``momentum``, ``nesterov``, ``weight_decay``: of SGD alone. Adam decays no weight, AdamW as
    torch has it by default (0.01, decoupled).
    """
    made: torch.optim.Optimizer
    if name == "sgd":
        made = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, nesterov=nesterov,
            weight_decay=weight_decay,
        )  # fmt: skip
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
        made = kind(parameters, lr=learning_rate)
    for group in made.param_groups:
        group["initial_lr"] = group["lr"]
    return made


def share_of_rate(schedule: Schedule, progress: float) -> float:
    """Share of the initial learning rate at ``progress``, the share of an adaptation's steps.

    ``constant``: 1; ``decay``: (1 + 10 progress)^-0.75, from 1 to 0.166 (Ganin et al., JMLR 2016).
    """
    return 1.0 if schedule == "constant" else (1.0 + 10.0 * progress) ** -0.75


def begin_adaptation(optimizer: torch.optim.Optimizer, state: OptimizerState) -> None:
    """Let the optimizer forget what it knew, or go on with it."""
    if state == "new":
        optimizer.state.clear()


def planned_steps(domain: DomainView, epochs: int) -> int:
    """Steps that an adaptation takes if the window does not close before: its batches."""
    return domain.max_passes(epochs) * domain.batches_per_pass


def set_rate(optimizer: torch.optim.Optimizer, schedule: Schedule, progress: float) -> None:
    """Give each group of a `make_optimizer` its learning rate at ``progress``, in [0, 1]."""
    if schedule == "constant":
        return
    share = share_of_rate(schedule, progress)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
