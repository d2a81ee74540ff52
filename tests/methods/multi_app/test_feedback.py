"""Feedback among applications: the formula by hand, and no order among them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.methods.edgeta.method import EdgeTA
from bench.methods.edgeta.offline import weights_of
from bench.methods.edgeta.proxies import proxy_to_kb
from bench.methods.edgeta.retraining import retrained
from bench.methods.multi_app.feedback import joint_feedback, task_agnostic
from bench.methods.multi_app.method import MultiApp


@torch.no_grad()
def disturb(method: MultiApp) -> None:
    """Give every application's proxy other weights."""
    for number, app in enumerate(method.apps):
        generator = torch.Generator().manual_seed(number)
        for name, p in app.model.module.named_parameters():
            if name in retrained(app.model):
                p.add_(0.1 * torch.randn(p.shape, generator=generator))


def weights(app: EdgeTA) -> dict[str, Tensor]:
    both = {"fm": app.fm, "kb": app.kb}
    return {f"{k}.{n}": t.clone() for k, m in both.items() for n, t in weights_of(m).items()}


@pytest.mark.parametrize("model_feedback", ["change", "replace"])
def test_models_are_averaged_between_the_two_halves(
    prepared: Callable[..., MultiApp], model_feedback: str
) -> None:
    method, other = (prepared(model_feedback=model_feedback, fm_to_kb=0.4) for _ in range(2))
    disturb(method)
    disturb(other)
    joint_feedback(method.apps)
    read = []
    for app in other.apps:  # step by step, with the mean written out
        read.append(app.index.read(weights_of(app.fm)))
        kb = weights_of(app.kb)
        before = {name: tensor.clone() for name, tensor in kb.items()}
        proxy_to_kb(weights_of(app.model), kb, app.slices, retrained(app.model))
        app.index.to_fm(before, kb, weights_of(app.fm), app.config.kb_to_fm)
    models = [weights_of(app.fm) for app in other.apps]
    for name in models[0]:
        if not name.startswith(("norm", "head")):
            mean = sum(m[name].double() for m in models) / len(models)
            for m in models:
                m[name].copy_(mean)
    for app, was in zip(other.apps, read, strict=True):
        kb, fm = weights_of(app.kb), weights_of(app.fm)
        if model_feedback == "replace":
            app.index.to_kb(kb, fm, 0.4)
        else:
            app.index.change_to_kb(was, kb, fm, 0.4)
    for mine, theirs in zip(method.apps, other.apps, strict=True):
        expected = weights(theirs)
        for name, tensor in weights(mine).items():
            torch.testing.assert_close(tensor, expected[name], msg=name)
    fms = [weights_of(app.fm) for app in method.apps]
    shared = [name for name in fms[0] if task_agnostic(method.apps[0], name)]
    assert len(shared) > 5
    assert all(torch.equal(fms[0][n], fms[2][n]) for n in shared)


def test_the_order_of_the_applications_does_not_matter(
    prepared: Callable[..., MultiApp],
) -> None:
    method, other = prepared(), prepared()
    disturb(method)
    disturb(other)
    joint_feedback(method.apps)
    joint_feedback([other.apps[i] for i in (2, 0, 1)])
    for mine, theirs in zip(method.apps, other.apps, strict=True):
        expected = weights(theirs)
        assert all(torch.equal(tensor, expected[n]) for n, tensor in weights(mine).items())


def test_one_application_alone_gets_edgetas_own_feedback(
    prepared: Callable[..., MultiApp],
) -> None:
    method, other = prepared(apps=1), prepared(apps=1)
    disturb(method)
    disturb(other)
    joint_feedback(method.apps)
    (app,) = other.apps
    kb = weights_of(app.kb)
    before = {name: tensor.clone() for name, tensor in kb.items()}
    proxy_to_kb(weights_of(app.model), kb, app.slices, retrained(app.model))
    was = app.index.read(weights_of(app.fm))
    app.index.to_fm(before, kb, weights_of(app.fm), 0.1)
    app.index.change_to_kb(was, kb, weights_of(app.fm), 1.0)
    expected = weights(app)
    for name, tensor in weights(method.apps[0]).items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize(("feedback", "changed"), [("none", set()), ("direct", {"kb"})])
def test_ablations_touch_only_what_they_name(
    prepared: Callable[..., MultiApp], feedback: str, changed: set[str]
) -> None:
    method = prepared(feedback=feedback)
    disturb(method)
    before = [weights(app) for app in method.apps]
    joint_feedback(method.apps)
    for app, earlier in zip(method.apps, before, strict=True):
        now = weights(app)
        different = {n.split(".")[0] for n in now if not torch.equal(now[n], earlier[n])}
        assert different == changed
