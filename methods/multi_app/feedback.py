"""Feedback among applications: each to its own model, the mean of the models, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..edgeta.method import EdgeTA


@torch.no_grad()
def average_task_agnostic(
    models: Sequence[dict[str, Tensor]], shared: Callable[[str], bool]
) -> None:
    """Every application's model becomes the mean over applications where ``shared``, in place.

    All means are taken before any is written, so the order of applications does not matter.
    Parameters that are not in all models, with equal shapes, stay.
    """
    first = models[0]
    names = [
        name
        for name, tensor in first.items()
        if shared(name) and all(name in m and m[name].shape == tensor.shape for m in models)
    ]
    # In double precision and sorted by value: a sum in another order would round otherwise.
    means = {
        name: torch.stack([m[name].double() for m in models]).sort(dim=0).values.mean(dim=0)
        for name in names
    }
    for model in models:
        for name, mean in means.items():
            model[name].copy_(mean)


def joint_feedback(apps: Sequence[EdgeTA]) -> None:
    """What the proxies have learned goes to all that the applications hold, in place.

    For each application W_kb = (W_kb + W_proxy) / 2 and W_fm += alpha_1 I^T dW_kb; then every
    W_fm becomes the mean over applications where it is task-agnostic; then W_kb += alpha_2 I dW_fm
    for each, dW_fm the change by both steps; by ``model_feedback: replace``, W_kb = alpha_2 I W_fm
    + (1 - alpha_2) W_kb. With ``feedback`` ``direct`` only the first of these is done, with
    ``none`` nothing. The order of the applications does not matter.
    """
    full = [app for app in apps if app.give_to_model()]
    if not full:
        return
    average_task_agnostic(
        [app.fm_weights() for app in full], lambda name: task_agnostic(full[0], name)
    )
    for app in full:
        app.take_from_model()


def task_agnostic(app: EdgeTA, name: str) -> bool:
    """Whether applications share a parameter: all but LoRA products, the head and the last norm."""
    head = {id(p) for p in app.fm.head_parameters()}
    own = {n for n, p in app.fm.module.named_parameters() if id(p) in head}  # tied ones too
    return not (name in app.products or name in own or name.startswith("norm"))
