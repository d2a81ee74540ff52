"""RoTTA against Yuan et al. (CVPR 2023): memory, reweighted consistency, robust BatchNorm."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bench.contracts.data import DomainView
from bench.errors import Unsupported
from bench.methods.rotta import RobustBatchNorm, Rotta, RottaConfig, make_robust


class ShiftedViews(nn.Module):
    def forward(self, x, generator):
        return x + 0.2


@pytest.fixture
def images(model, data):
    """The tiny network behind a flattening, for images of 2 x 3 pixels."""
    model.module = nn.Sequential(nn.Flatten(), model.module)
    return data(20)[0].reshape(20, 1, 2, 3)


def prepared(model, x, view, **settings):
    method = Rotta(RottaConfig(**settings))
    method.prepare(model, view(x))
    method.views = ShiftedViews()
    return method


def plain_memory(stream, capacity, classes, lambda_t=1.0, lambda_u=1.0):
    """Category-balanced sampling with timeliness and uncertainty, on (name, label, entropy)."""
    held = {c: [] for c in range(classes)}

    def score(age, doubt):
        return lambda_t / (1 + math.exp(-age / capacity)) + lambda_u * doubt / math.log(classes)

    def drop_worse(candidates, doubt):
        worst, where = -1.0, None
        for c in candidates:
            for entry in held[c]:
                if score(entry[1], entry[2]) > worst:
                    worst, where = score(entry[1], entry[2]), (c, entry)
        if worst > score(0, doubt):
            held[where[0]].remove(where[1])
            return True
        return False

    for name, label, doubt in stream:
        if len(held[label]) < capacity / classes:
            if sum(len(v) for v in held.values()) < capacity:
                taken = True
            else:
                most = max(len(v) for v in held.values())
                taken = drop_worse([c for c in held if len(held[c]) == most], doubt)
        else:
            taken = drop_worse([label], doubt)
        if taken:
            held[label].append([name, 0, doubt])
        for entries in held.values():
            for entry in entries:
                entry[1] += 1
    return {(name, c, age) for c, entries in held.items() for name, age, _ in entries}


@pytest.mark.parametrize(("capacity", "classes"), [(9, 3), (7, 3), (4, 6), (64, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_memory_keeps_what_the_paper_keeps(capacity, classes, seed):
    """A skewed stream; also with fewer places than classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(80, generator=generator) ** 2 * classes).long().tolist()
    doubts = (torch.rand(80, generator=generator, dtype=torch.float64) * math.log(classes)).tolist()
    stream = list(zip(range(80), labels, doubts, strict=True))
    method = Rotta(RottaConfig(capacity=capacity))
    method.memory = []
    for name, label, doubt in stream:
        method._remember(torch.tensor([float(name)]), label, doubt / math.log(classes), classes)
    got = {(int(kept["x"]), kept["label"], kept["age"]) for kept in method.memory}
    assert len(got) == len(method.memory) <= capacity
    assert got == plain_memory(stream, capacity, classes)


def logits_of(net, x, scale, shift):
    hidden = x.reshape(len(x), -1) @ net.body.weight.detach().t() + net.body.bias.detach()
    mean = hidden.mean(dim=1, keepdim=True)
    spread = (((hidden - mean) ** 2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    active = torch.tanh((hidden - mean) / spread * scale + shift)
    return active @ net.head.weight.detach().t() + net.head.bias.detach()


def test_two_updates_follow_the_reweighted_consistency(model, images, view, adapt, adam_by_hand):
    """Every 4 samples: E(age) CE(teacher, student on the strong view), then the teacher's step."""
    net, lr, nu, capacity = model.module[1], 0.05, 0.2, 40
    stream = [x for batch in view(images[:11], batch_size=5).batches() for x in batch.x]
    start = [p.detach().clone() for p in net.norm.parameters()]
    student, teacher = [p.clone() for p in start], [p.clone() for p in start]
    history = [[], []]
    for arrived in (4, 8):
        x = torch.stack(stream[:arrived])
        ages = [arrived - i for i in range(arrived)]
        target = torch.softmax(logits_of(net, x, *teacher), dim=1)
        live = [w.clone().requires_grad_(True) for w in student]
        log_p = torch.log(torch.softmax(logits_of(net, x + 0.2, *live), dim=1))
        loss = 0.0
        for i, age in enumerate(ages):
            timeliness = math.exp(-age / capacity) / (1 + math.exp(-age / capacity))
            loss = loss - timeliness * (target[i] * log_p[i]).sum() / arrived
        for k, gradient in enumerate(torch.autograd.grad(loss, live)):
            history[k].append(gradient)
            student[k] = adam_by_hand(start[k], history[k], lr)
            teacher[k] = (1 - nu) * teacher[k] + nu * student[k]

    method = prepared(
        model, images, view, learning_rate=lr, teacher_rate=nu, capacity=capacity, update_every=4
    )
    body = net.body.weight.detach().clone()
    adapt(method, view(images[:11], batch_size=5))
    assert len(method.memory) == 11, "no class may be full, or this test's memory is another one"
    for got, want in zip(net.norm.parameters(), student, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=1e-9)
    for got, want in zip(method.teacher.module[1].norm.parameters(), teacher, strict=True):
        torch.testing.assert_close(got.detach(), want, rtol=1e-6, atol=1e-9)
    assert torch.equal(net.body.weight.detach(), body)
    torch.testing.assert_close(
        method.predict(images), logits_of(net, images, *teacher), rtol=1e-6, atol=1e-9
    )


def test_samples_are_counted_across_calls(model, images, view, adapt):
    """Online, batches of one: nothing changes before the 4th sample."""
    method = prepared(model, images, view, update_every=4)
    start = method.trained[0].detach().clone()
    for i in range(4):
        assert torch.equal(method.trained[0].detach(), start)
        one = DomainView("d", images[i : i + 1], None, 1, torch.Generator(), single_pass=True)
        adapt(method, one)
    assert not torch.equal(method.trained[0].detach(), start)


def test_the_memory_holds_samples_and_not_their_domain(model, images, view, adapt):
    method = prepared(model, images, view)
    adapt(method, view(images, batch_size=10))
    for kept in method.memory:
        assert kept["x"].untyped_storage().nbytes() == 6 * 8


@pytest.mark.parametrize("shape", [(5, 4), (1, 4), (3, 4, 2, 2)])
def test_robust_batchnorm_normalizes_by_what_the_batch_moved(shape):
    """mu = (1-a) mu + a mean(x), likewise the variance; gradients flow through the second term."""
    layer = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    layer.running_mean.copy_(torch.arange(4.0))
    layer.running_var.copy_(torch.arange(4.0) + 0.5)
    mean, variance = layer.running_mean.clone(), layer.running_var.clone()
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    holder = nn.Sequential(layer)
    make_robust(holder, 0.3)
    (robust,) = holder
    assert isinstance(robust, RobustBatchNorm)
    assert robust.weight is layer.weight

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    twin = x.clone().requires_grad_(True)
    x.requires_grad_(True)
    expected = []
    for c in range(4):
        values = twin[:, c]
        mu = values.sum() / values.numel()
        var = ((values - mu) ** 2).sum() / values.numel()
        mean_c, var_c = 0.7 * mean[c] + 0.3 * mu, 0.7 * variance[c] + 0.3 * var
        expected.append((values - mean_c) / torch.sqrt(var_c + 1e-5) * weight[c] + bias[c])
        mean[c], variance[c] = mean_c.detach(), var_c.detach()
    expected = torch.stack(expected, dim=1)
    robust.train()
    got = robust(x)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)
    (gradient,) = torch.autograd.grad(got.pow(3).sum(), x)
    (wanted,) = torch.autograd.grad(expected.pow(3).sum(), twin)
    torch.testing.assert_close(gradient, wanted, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(robust.running_mean, mean, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(robust.running_var, variance, rtol=1e-6, atol=1e-9)
    robust.train(False)
    torch.testing.assert_close(robust(x), nn.functional.batch_norm(
        x, mean, variance, weight, bias, training=False
    ), rtol=1e-6, atol=1e-9)  # fmt: skip
    assert torch.equal(robust.running_mean, mean) or torch.allclose(robust.running_mean, mean)


def test_batchnorm_becomes_robust_in_student_and_teacher(model, images, view, adapt):
    model.module[1].norm = nn.BatchNorm1d(8).double()
    method = prepared(model, images, view, update_every=4)
    source = model.module[1].norm.running_mean.clone()
    adapt(method, view(images[:3]))
    assert torch.equal(method.teacher.module[1].norm.running_mean, source), "labelling only reads"
    adapt(method, view(images[3:]))
    for each in (method.model, method.teacher):
        assert isinstance(each.module[1].norm, RobustBatchNorm)
        assert not torch.equal(each.module[1].norm.running_mean, source)


def test_what_cannot_be_adapted_is_refused(model, data, view):
    with pytest.raises(Unsupported, match="rotta needs views of images"):
        Rotta(RottaConfig()).prepare(model, view(data(5)[0]))
    model.module.norm = nn.Identity()
    with pytest.raises(Unsupported, match="no normalization layer"):
        Rotta(RottaConfig()).prepare(model, view(torch.rand(5, 1, 2, 3)))
