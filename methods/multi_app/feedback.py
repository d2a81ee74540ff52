"""Feedback among applications: each to its own model, the mean of the models, and back."""

from __future__ import annotations

from collections.abc import Sequence

from bench.methods.edgeta.feedback import average_task_agnostic, proxy_to_kb
from bench.methods.edgeta.method import EdgeTA, retrained
from bench.methods.edgeta.offline import weights_of


def joint_feedback(apps: Sequence[EdgeTA]) -> None:
    """What the proxies have learned goes to all that the applications hold, in place.

    For each application W_kb = (W_kb + W_proxy) / 2 and W_fm += alpha_1 I^T dW_kb; then every
    W_fm becomes the mean over applications where it is task-agnostic; then W_kb = alpha_2 I W_fm
    + (1 - alpha_2) W_kb for each. With ``feedback`` ``direct`` only the first of these is done,
    with ``none`` nothing. The order of the applications does not matter.
    """
    models = []
    for app in apps:
        c = app.config
        if c.feedback == "none":
            continue
        kb = weights_of(app.kb)
        names = [
            name for name in retrained(app.model) if c.feedback_biases or not name.endswith("bias")
        ]
        before = {**kb, **{name: kb[name].clone() for name in names}}
        proxy_to_kb(weights_of(app.model), kb, app.slices, names)
        if c.feedback == "full":
            fm = {**weights_of(app.fm), **app.products}
            app.index.to_fm(before, kb, fm, c.kb_to_fm)
            models.append((app, kb, fm))
    if not models:
        return
    average_task_agnostic([fm for _, _, fm in models], lambda name: task_agnostic(apps[0], name))
    for app, kb, fm in models:
        app.index.to_kb(kb, fm, app.config.fm_to_kb)


def task_agnostic(app: EdgeTA, name: str) -> bool:
    """Whether applications share a parameter: all but LoRA products, the head and the last norm."""
    own = (f"{app.fm.head_name}.", "norm")
    return name not in app.products and not name.startswith(own)
