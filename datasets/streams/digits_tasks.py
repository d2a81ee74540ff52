"""Handwritten digits of which new classes come along the stream, alone or between shifts."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import register

from ..digits import CLASSES, SHIFTS, DigitsConfig, DigitsStream, Step

MIXED_SHIFTS = {
    "test": (
        "rotation", "contrast", "blur", "noise", "shear", "brightness",
        "translation", "inversion", "scale", "salt-pepper", "occlusion", "stripes",
    ),
    "validation": SHIFTS["validation"],
}  # fmt: skip
"""The order in which a mixed stream takes its shifts: as many as it needs, each once."""


VALIDATION_TASKS = 3
"""At most: a mixed stream of more would need more shifts than there are for validation."""


class DigitsTasksConfig(DigitsConfig):
    """``source_classes``: digits in the source, from 0 on; ``per_task``: new digits in a task.

    The last task has what is left. Part "validation" knows the source's classes alone: the last
    ``per_task`` of them come as its first task, and the others, two at least, are its own source.
    Later tasks are made of the same images rotated by 90 degrees, each digit a new class, so
    that its stream is about as long as the one that is reported. ``size``: pixels a side.
    """

    source_classes: int = Field(4, ge=4, le=9)
    per_task: int = Field(2, ge=1, le=6)


class DigitsMixedConfig(DigitsTasksConfig):
    """Settings of the tasks, and ``severity`` of every shift: 1 (moderate) or 2 (strong)."""

    severity: Literal[1, 2] = 1


class RotatedClasses(DigitsStream):
    """Digits whose validation part also has those of the source rotated, as classes of their own.

    What was learned of one task can be forgotten over several only if there are several, and the
    source's few digits are too few. Rotations as further classes: Zhu et al., "Prototype
    augmentation and self-supervision for incremental learning", CVPR 2021.
    """

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        images, labels, indices = super()._clean
        if self.config.part != "validation":
            return images, labels, indices
        known = self.config.source_classes
        rotated = torch.rot90(images, dims=(-2, -1))
        unknown = labels >= known  # stays outside all classes, rotated or not
        names = torch.cat([labels, labels + known])
        names[torch.cat([unknown, unknown])] = CLASSES
        n = len(labels)
        both = {split: torch.cat([chosen, chosen + n]) for split, chosen in indices.items()}
        return torch.cat([images, rotated]), names, both


@register("stream", "digits-tasks")
class DigitsTasks(RotatedClasses):
    """Real 8x8 digits of scikit-learn, class-incremental: a source of 0 to 3, then 3 tasks of 2.

    A domain is a task and has the images of its new classes, unshifted. The outputs of all ten
    classes are there from the start; which task a test image is from is not given. The validation
    stream has a source of 0 and 1 and 3 tasks: 2 and 3, 0 and 1 rotated by 90 degrees,
    2 and 3 rotated.
    """

    Config = DigitsTasksConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")
    supervised = True
    shifts = ("class",)

    def __init__(self, config: DigitsTasksConfig, seed: int) -> None:
        source, tasks = _classes(config)
        super().__init__(config, seed, source, [Step(_name(task), task) for task in tasks])


@register("stream", "digits-mixed")
class DigitsMixed(RotatedClasses):
    """Real 8x8 digits of scikit-learn, new classes and shifts in turn: 6 domains after 0 to 3.

    First a shift of the classes known so far, then new classes under another shift, and so on: no
    shift comes twice. Outputs as in digits-tasks. The validation stream has the classes of that of
    digits-tasks, and shifts of its own: 6 domains after 0 and 1.
    """

    Config = DigitsMixedConfig
    preload = ("sklearn.datasets", "sklearn.model_selection")
    supervised = True
    shifts = ("domain", "class")

    def __init__(self, config: DigitsMixedConfig, seed: int) -> None:
        source, tasks = _classes(config)
        shifts = iter(MIXED_SHIFTS[config.part])
        known, severity = source, config.severity
        steps = []

        for task in tasks:
            for classes, name in ((known, ""), (task, f"{_name(task)}-")):
                shift = next(shifts)
                steps.append(Step(f"{name}{shift}-{severity}", classes, shift, severity))
            known += task
        super().__init__(config, seed, source, steps)


def _classes(config: DigitsTasksConfig) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The source's classes and those of each task."""
    n, end, per_task = config.source_classes, CLASSES, config.per_task
    if config.part == "validation":
        n, end = max(n - per_task, 2), min(2 * n, CLASSES)
        end = min(end, n + VALIDATION_TASKS * per_task)
    starts = range(n, end, per_task)
    return tuple(range(n)), [tuple(range(i, min(i + per_task, end))) for i in starts]


def _name(task: tuple[int, ...]) -> str:
    return "-".join(["classes", *map(str, task)])
