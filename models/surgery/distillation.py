"""Distillation: a cut model learns the source task and its teacher's predictions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench import BenchError, DomainView, FoundationModel
from bench.io.progress import advance

WARMUP = 0.1
"""Share of the steps in which the learning rate rises."""


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise over a tenth, then a fall to 0."""
    rise = max(round(WARMUP * steps), 1)
    if step < rise:
        return (step + 1) / rise
    return (steps - step) / max(steps - rise, 1)


def distil(
    student: FoundationModel,
    teacher: FoundationModel,
    source: DomainView,
    steps: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    weight: float = 1.0,
    after_step: Callable[[int, Tensor], None] | None = None,
) -> None:
    """Train all of the student by AdamW on task loss + ``weight`` * the task's distillation loss.

    Inputs are augmented as in source training; student and teacher see the same. The teacher
    stays as it is, in evaluation mode. Randomness: torch's global generator and the order of
    ``source``. Afterwards the student is in evaluation mode and holds no gradients.
    ``source`` is labelled, its batch size is that of a step; ``learning_rate`` is the peak, after a
    tenth of the steps; ``after_step`` gets the number of each step, from 1, and its loss, and may
    look at the student. Raises BenchError if ``steps`` < 1 or the source has no labels.
    """
    if steps < 1:
        raise BenchError(f"distillation: {steps} steps train nothing; use 1 or more")
    student.module.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        student.module.parameters(), learning_rate, weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
    student.train(True)
    teacher.train(False)
    batches = source.infinite()
    try:
        for step in range(steps):
            batch = next(batches)
            x = student.augment(batch.x)
            with torch.no_grad():
                target = teacher(x)
            outputs = student(x)
            loss = student.loss(outputs, batch.y) + weight * student.distillation_loss(
                outputs, target, x
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            advance(step + 1, steps)
            if after_step is not None:
                after_step(step + 1, loss.detach())
    finally:
        optimizer.zero_grad()  # gradients would count as the deployed model's memory
        student.train(False)
