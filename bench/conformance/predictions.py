"""Checks of what a method predicts, and of where it keeps what predictions depend on."""

from __future__ import annotations

from bench.conformance.base import CheckFailed, check
from bench.conformance.method_fixture import MethodFixture
from bench.contracts.data import batch_length
from bench.errors import Unsupported
from bench.run.validity import require_outputs
from bench.snapshots.content import changed_part, held_content, outside_content
from bench.snapshots.snapshot import OutsideState, Snapshot


@check
def outputs(subject: MethodFixture) -> str:
    """Predicts finite logits of shape (samples, classes), before and after adapting."""
    method = subject.prepare()
    x = subject.inputs()
    for when in ("before", "after"):
        made = subject.predict_raw(method, x)
        where = f"40 samples {when} adapting"
        classes, n = subject.setting.classes, batch_length(x)
        require_outputs(made, n, method.model.rules, classes, subject.name, where)
        if when == "before":
            subject.adapt(method, subject.view())
    return "predicted 40 samples twice"


@check
def reads_only(subject: MethodFixture) -> str:
    """Predicting changes no tensor or array that it holds, and no global or class attribute."""
    method = subject.prepare()
    subject.adapt(method, subject.view())
    held, outside = held_content(method), outside_content(method)
    subject.predict_raw(method, subject.inputs())
    values = [{name: c.values for name, c in each.items()} for each in (held, held_content(method))]
    changed = changed_part(*values) or changed_part(outside, outside_content(method))
    if changed is not None:
        raise CheckFailed(f"predict changes {changed}: change it in adapt, or keep it local")
    return f"compared {len(held) + len(outside)} attributes, class attributes and globals"


@check
def copies(subject: MethodFixture) -> str:
    """What it learns is in self, where a copy reaches it: for reset: domain and online-timed."""
    method = subject.prepare()
    outside = OutsideState(method, "reset: domain")
    try:
        snapshot = Snapshot(method, "reset: domain")
    except Unsupported as reason:
        return f"nothing: a suite with reset: domain leaves it out ({reason})"
    try:
        snapshot.require_independent()
        subject.adapt(method, subject.view())
        subject.predict_raw(method, subject.inputs())
        outside.require_unchanged()
    except Unsupported as reason:
        raise CheckFailed(str(reason)) from reason
    return "copied it, adapted and predicted"
