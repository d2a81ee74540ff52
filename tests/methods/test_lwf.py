"""LwF against Li and Hoiem (ECCV 2016) written out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bench.methods.lwf import Lwf, LwfConfig


def distillation(new, old, classes, temperature):
    """Mean over samples of sum_c q_c (log q_c - log p_c), tempered, over the classes seen."""
    total = 0.0
    for i in range(len(new)):
        p = [torch.exp(new[i, c] / temperature) for c in classes]
        q = [torch.exp(old[i, c] / temperature) for c in classes]
        for a, b in zip(p, q, strict=True):
            share = b / sum(q)
            total = total + share * (torch.log(share) - torch.log(a / sum(p))) / len(new)
    return total


def test_updates_follow_cross_entropy_and_distillation(model, data, view, adapt):
    """The teacher is the model before the domain, on the classes that it had been taught."""
    (xs, ys), (x1, y1), (x2, y2) = data(8), data(6, seed=2), data(6, seed=3)
    ys = ys % 2  # the source has no class 2
    alpha, temperature, lr = 1.5, 2.0, 0.01
    plain = model.clone().module
    optimizer = torch.optim.AdamW(plain.parameters(), lr=lr)
    seen = {0, 1}
    for x, y in ((x1, y1), (x2, y2)):
        with torch.no_grad():
            old = plain(x)
        for _ in range(3):
            new = plain(x)
            loss = cross_entropy(new, y) + alpha * distillation(new, old, sorted(seen), temperature)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seen |= set(y.tolist())

    more = {"optimizer_state": "kept", "loss_classes": "all"}
    distilled = {"alpha": alpha, "temperature": temperature}
    method = Lwf(LwfConfig(learning_rate=lr, epochs=3, **distilled, **more))
    method.prepare(model, view(xs, ys))
    assert method.plugin.lwf.prev_classes_by_task[0] == {0, 1}
    adapt(method, view(x1, y1), view(x2, y2))
    for p, expected in zip(model.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected.detach(), rtol=1e-6, atol=1e-9)
    assert seen == method.plugin.lwf.prev_classes_by_task[0] == {0, 1, 2}


def test_the_teacher_neither_drops_out_nor_learns(model, data, view, adapt):
    model.module.head = nn.Sequential(
        nn.Dropout(0.5), nn.BatchNorm1d(8, dtype=torch.float64), model.module.head
    )
    method = Lwf(LwfConfig(learning_rate=0.01))
    method.prepare(model, view(*data(8)))
    teacher = method.plugin.lwf.prev_model.module
    before = {n: t.clone() for n, t in teacher.state_dict().items()}
    assert not teacher.training
    adapt(method, view(*data(8, seed=2)))
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())
    assert method.plugin.lwf.prev_model.module is not teacher
    assert not method.plugin.lwf.prev_model.training
