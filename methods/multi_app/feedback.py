"""Feedback among applications: each to its own model, the mean of the models, and back."""

from __future__ import annotations

from collections.abc import Sequence

from ..edgeta.feedback import average_task_agnostic
from ..edgeta.method import EdgeTA


def joint_feedback(apps: Sequence[EdgeTA]) -> None:
    """What the proxies have learned goes to all that the applications hold, in place.

    For each application W_kb = (W_kb + W_proxy) / 2 and W_fm += alpha_1 I^T dW_kb; then every
    W_fm becomes the mean over applications where it is task-agnostic; then W_kb = alpha_2 I W_fm
    + (1 - alpha_2) W_kb for each. With ``feedback`` ``direct`` only the first of these is done,
    with ``none`` nothing. The order of the applications does not matter.
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
    own = (f"{app.fm.head_name}.", "norm")
    return name not in app.products and not name.startswith(own)
