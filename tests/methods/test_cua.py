"""CUA: source task, alignment and replay (Bobu et al., ICLR-W 2018), two updates by hand."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bench.methods.cua import Cua, CuaConfig
from bench.methods.feature_alignment import FeatureAlignment
from bench.testing import TinyModel


def forward(x, p):
    hidden = x @ p["body.weight"].t() + p["body.bias"]
    mean = hidden.mean(dim=1, keepdim=True)
    std = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    features = torch.tanh((hidden - mean) / std * p["norm.weight"] + p["norm.bias"])
    return features, features @ p["head.weight"].t() + p["head.bias"]


def plain_mmd(fs, ft):
    joint = torch.cat([fs, ft])
    with torch.no_grad():
        size = len(joint)
        h = sum(((a - b) ** 2).sum() for a in joint for b in joint) / (size * size - size)
    total = 0.0
    for first, second, sign in ((fs, fs, 1), (ft, ft, 1), (fs, ft, -2)):
        for a in first:
            for b in second:
                for i in range(5):
                    k = torch.exp(-((a - b) ** 2).sum() / (h * 2.0 ** (i - 2)))
                    total = total + sign * k / (len(first) * len(second))
    return total


def test_two_domains_follow_task_alignment_and_replay(model, data, view, adapt, adam_by_hand):
    """Replay is over source labels first, then also over the first domain's pseudo-labels."""
    (xs, ys), (x1, _), (x2, _) = data(4), data(4, seed=2), data(4, seed=3)
    p = {n: t.detach().clone().requires_grad_(True) for n, t in model.module.named_parameters()}
    trained = [n for n in p if not n.startswith("head")]
    start = {n: p[n].detach().clone() for n in trained}
    history = {n: [] for n in trained}
    memory = [(xs, ys)]
    for target in (x1, x2):
        fs, logits = forward(xs, p)
        replay = cross_entropy(
            forward(torch.cat([x for x, _ in memory]), p)[1], torch.cat([y for _, y in memory])
        )
        loss = cross_entropy(logits, ys) + 2.0 * plain_mmd(fs, forward(target, p)[0]) + 0.7 * replay
        gradients = torch.autograd.grad(loss, [p[n] for n in trained])
        with torch.no_grad():
            for n, gradient in zip(trained, gradients, strict=True):
                history[n].append(gradient)
                p[n].copy_(adam_by_hand(start[n], history[n], 0.01, weight_decay=0.01))
            memory.append((target, forward(target, p)[1].argmax(dim=1)))

    method = Cua(
        CuaConfig(
            learning_rate=0.01,
            epochs=1,
            mmd_weight=2.0,
            replay_weight=0.7,
            replay_samples=4,
            optimizer_state="kept",
        )
    )
    method.prepare(model, view(xs, ys))
    tracker = adapt(method, view(x1), view(x2))
    assert tracker.counts == {"adapt": 2, "pseudo-label": 2}
    for n, parameter in model.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), p[n].detach(), rtol=1e-6, atol=1e-9)

    held = {
        tuple(x.tolist()): int(y) for x, y in zip(method.memory_x, method.memory_y, strict=True)
    }
    expected = {tuple(x.tolist()): int(y) for xs, ys in memory for x, y in zip(xs, ys, strict=True)}
    assert held == expected


def test_without_replay_it_is_feature_alignment(model, data, view, adapt):
    twin = model.clone()
    cua, aligned = Cua(CuaConfig(replay_weight=0.0)), FeatureAlignment(FeatureAlignment.Config())
    for method, net in ((cua, model), (aligned, twin)):
        method.prepare(net, view(*data(8), batch_size=4))
        adapt(method, view(data(8, seed=2)[0], batch_size=4), view(data(6, seed=3)[0]))
    for name, parameter in twin.module.named_parameters():
        torch.testing.assert_close(model.module.get_parameter(name), parameter, rtol=0, atol=0)


def test_the_buffer_holds_copies_and_grows_by_a_fixed_number(model, data, view, adapt):
    source, target = view(*data(9)), view(data(9, seed=2)[0], batch_size=2)
    method = Cua(CuaConfig(epochs=1, replay_samples=3))
    method.prepare(model, source)
    assert len(method.memory_y) == 3
    kept = method.memory_x.clone()
    adapt(method, target)
    assert len(method.memory_x) == len(method.memory_y) == 6
    assert method.memory_x.untyped_storage().nbytes() == 6 * 6 * 8
    target.x.fill_(torch.nan)
    source.x.fill_(torch.nan)
    assert torch.equal(method.memory_x[:3], kept)
    assert torch.isfinite(method.memory_x).all()
    assert method.stored()["memory_x"] is method.memory_x


def test_the_buffer_is_drawn_anew_for_each_seed_and_alike_for_equal_ones(model, data, view):
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        method = Cua(CuaConfig(replay_samples=8))
        method.prepare(model.clone(), view(*data(60)))
        drawn.append(method.memory_x)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_it_can_be_copied_for_a_reset_between_domains(model, data, view, adapt):
    method = Cua(CuaConfig(epochs=1, replay_samples=3))
    method.prepare(model, view(*data(9)))
    start = copy.deepcopy(vars(method))
    adapt(method, view(data(9, seed=2)[0]))
    vars(method).clear()
    vars(method).update(start)
    assert len(method.memory_y) == 3
    adapt(method, view(data(9, seed=2)[0]))
    assert len(method.memory_y) == 6


def test_inputs_that_are_mappings_are_kept_too(view, adapt):
    class OfMappings(nn.Sequential):
        def forward(self, x):
            return super().forward(x["ids"])

    def inputs(n, value):
        return {"ids": torch.full((n, 3), value)}

    method = Cua(CuaConfig(epochs=1, replay_samples=2))
    model = TinyModel(OfMappings(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), head_name="2")
    method.prepare(model, view(inputs(4, 0.0), torch.zeros(4).long()))
    adapt(method, view(inputs(5, 1.0)))
    assert method.memory_x["ids"].tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 2
