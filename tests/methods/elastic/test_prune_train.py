"""PruneTrain: the lasso and an update written out, and that removing dead channels is no change."""

from __future__ import annotations

import builtins
import copy

import numpy as np
import pytest
import torch
from torch import nn

from bench import Unsupported
from bench.methods.elastic.prune_train import (
    PruneTrain,
    PruneTrainConfig,
    channel_groups,
    group_lasso,
    largest_weights,
)
from bench.models.digits_resnet import DigitsResNet, DigitsResNetConfig
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.models.timm_model import TimmConfig, TimmModel

pytest.importorskip("torch_pruning", reason="needs the extra 'pruning'")


def resnet() -> DigitsResNet:
    torch.manual_seed(0)
    made = DigitsResNet.build(DigitsResNetConfig(), (1, 32, 32), 10)
    made.module.double()
    return made


def small(architecture: str, size: int = 32) -> TimmModel:
    torch.manual_seed(0)
    config = TimmConfig(architecture=architecture, image_size=size)
    made = TimmModel.build(config, (3, size, size), 10)
    made.module.double()
    return made


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(16, 1, 32, 32, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 10, (16,), generator=generator)


def prepared(images, view, model=None, **settings):
    method = PruneTrain(PruneTrainConfig(**settings))
    method.prepare(model or resnet(), view(*images))
    return method


def lasso_by_loops(module: nn.Module, head: str) -> float:
    """The norm of each output and each input channel of each layer, one at a time."""
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    total = 0.0
    for k, (name, layer) in enumerate(layers):
        weight = layer.weight.detach().numpy()
        if name != head:  # the network's outputs are its classes
            total += sum(np.sqrt(np.sum(w**2) + 1e-8) for w in weight)
        if k > 0:  # what the first layer reads is the image
            total += sum(np.sqrt(np.sum(w**2) + 1e-8) for w in weight.swapaxes(0, 1))
    return total


@pytest.mark.parametrize("name", ["digits-resnet", "resnet18", "mobilenetv2_035"])
def test_the_lasso_has_each_channel_of_each_layer_once(name):
    if name == "digits-resnet":
        model, x = resnet(), torch.rand(1, 1, 32, 32, dtype=torch.float64)
    else:
        model = small(name, 64)
        x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    groups = channel_groups(model, x)
    depthwise = [m for m in model.module.modules() if getattr(m, "groups", 1) > 1]
    plain = copy.deepcopy(model.module)
    for module_name, module in model.module.named_modules():  # which are left out
        if module in depthwise:
            parent, _, last = module_name.rpartition(".")
            setattr(plain.get_submodule(parent), last, nn.Identity())
    expected = lasso_by_loops(plain, model.head_name)
    assert float(group_lasso(model.module, groups).detach()) == pytest.approx(expected, rel=1e-12)


def test_an_update_is_sgd_on_the_loss_and_the_lasso(images, view, adapt):
    method = prepared(images, view, learning_rate=0.02, epochs=2, penalty_ratio=0.25)
    plain = copy.deepcopy(method.model)
    adapt(method, view(*images, batch_size=16))
    plain.module.train()
    momenta, weight = {}, None
    order = view(*images, batch_size=16)
    for batch in order.batches(2):
        cross_entropy = nn.functional.cross_entropy(plain(batch.x), batch.y)
        lasso = torch.zeros((), dtype=torch.float64)
        layers = [m for m in plain.module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        for k, layer in enumerate(layers):
            for side, left_out in ((0, k == len(layers) - 1), (1, k == 0)):
                for channel in [] if left_out else layer.weight.unbind(side):
                    lasso = lasso + (channel.square().sum() + 1e-8).sqrt()
        if weight is None:
            weight = 0.25 / 0.75 * float(cross_entropy) / float(lasso)
        parameters = dict(plain.module.named_parameters())
        gradients = torch.autograd.grad(cross_entropy + weight * lasso, list(parameters.values()))
        with torch.no_grad():
            for (name, p), g in zip(parameters.items(), gradients, strict=True):
                momenta[name] = g if name not in momenta else 0.9 * momenta[name] + g
                p -= 0.02 * momenta[name]
    assert method.weight == pytest.approx(weight, rel=1e-12)
    for name, p in method.model.module.named_parameters():
        torch.testing.assert_close(p, parameters[name], rtol=1e-9, atol=1e-12)


def kill(method: PruneTrain, share: float) -> list[list[int]]:
    """Take the first channels of each group, that share of them, out of all layers' weights."""
    dead = []
    for group in method.groups:
        channels = list(range(int(share * (max(group[0].channels) + 1))))
        for member in group:
            weight = method.model.module.get_submodule(member.layer).weight
            rows = [k for k, c in enumerate(member.channels) if c in channels]
            with torch.no_grad():
                weight.transpose(0, member.side)[rows] = 0.0
        dead.append(channels)
    return dead


@pytest.mark.parametrize(
    "name",
    ["", "resnet18", "mobilenetv2_035", pytest.param("vgg11_bn", marks=pytest.mark.slow)],  # 119 M
)
def test_removing_dead_channels_changes_no_prediction(images, view, adapt, name):
    x, y = images
    model = None
    if name:
        model = small(name)
        x = x.expand(-1, 3, -1, -1)
    method = prepared((x, y), view, model, epochs=1, learning_rate=1e-4)
    adapt(method, view(x, y, batch_size=8))
    dead = kill(method, 0.5)
    before = method.predict(x)
    momenta = {
        name: method.optimizer.state[p]["momentum_buffer"].clone()
        for name, p in method.model.module.named_parameters()
    }
    parameters = sum(p.numel() for p in method.model.module.parameters())
    assert method.dead() == dead
    method.remove(method.dead())
    assert sum(p.numel() for p in method.model.module.parameters()) < 0.6 * parameters
    torch.testing.assert_close(method.predict(x), before, rtol=1e-9, atol=1e-9)
    for group in method.groups:
        first = method.model.module.get_submodule(group[0].layer)
        kept = method.optimizer.state[first.weight]["momentum_buffer"]
        assert kept.shape == first.weight.shape
        assert kept.abs().max() <= momenta[f"{group[0].layer}.weight"].abs().max()
    adapt(method, view(x, y, batch_size=8))  # and it goes on


def test_momenta_of_what_is_left_are_kept(images, view, adapt):
    method = prepared(images, view, epochs=1)
    adapt(method, view(*images, batch_size=8))
    name = method.groups[0][0].layer
    weight = method.model.module.get_submodule(name).weight
    before = method.optimizer.state[weight]["momentum_buffer"].clone()
    method.remove([[0, 2]] + [[] for _ in method.groups[1:]])
    left = [k for k in range(len(before)) if k not in (0, 2)]
    weight = method.model.module.get_submodule(name).weight
    after = method.optimizer.state[weight]["momentum_buffer"]
    assert len(after) == len(before) - 2
    assert any(torch.equal(after, before[left][:, columns]) for columns in [slice(None), left])


def median(images, view) -> float:
    """The median of the largest weights of channels, which half of them are below."""
    method = prepared(images, view)
    largest = [largest_weights(method.model.module, group) for group in method.groups]
    return float(torch.cat(largest).median())


def test_steps_cost_less_once_channels_are_gone(images, view, adapt):
    method = prepared(
        images, view, epochs=4, interval=2, threshold=median(images, view), learning_rate=1e-5
    )
    adapt(method, view(*images, batch_size=8))
    assert method.reconfigurations == 2
    pruned = method.details()["pruned"]
    assert sum(pruned["left"]) < sum(pruned["channels"])
    assert all(left >= 1 for left in pruned["left"])
    whole = prepared(images, view, epochs=4, interval=100, learning_rate=1e-5)
    adapt(whole, view(*images, batch_size=8))
    operations = [adapt(each, view(*images, batch_size=8)).flops for each in (method, whole)]
    assert operations[0] < 0.8 * operations[1]


def test_one_channel_always_stays(images, view, adapt):
    method = prepared(images, view, epochs=2, interval=1, threshold=1e9)
    adapt(method, view(*images, batch_size=16))
    assert method.details()["pruned"]["left"] == [1] * len(method.groups)
    assert method.predict(images[0]).shape == (16, 10)


def test_a_state_brings_its_channels(images, view, adapt):
    settings = {"epochs": 2, "interval": 1, "threshold": median(images, view)}
    method = prepared(images, view, **settings)
    adapt(method, view(*images, batch_size=8))
    again = prepared(images, view, **settings)
    again.load_state(copy.deepcopy(method.state()))
    assert torch.equal(again.predict(images[0]), method.predict(images[0]))
    for each in (method, again):
        adapt(each, view(*images, batch_size=8, seed=3))
    assert torch.equal(again.predict(images[0]), method.predict(images[0]))


def test_networks_that_it_does_not_apply_to(images, view):
    vit = DigitsViT.build(DigitsViTConfig(width=24, depth=1, heads=2), (1, 32, 32), 10)
    with pytest.raises(Unsupported, match="DigitsViT has no two convolutions"):
        prepared(images, view, vit)
    normalized = small("convnext_atto")
    with pytest.raises(Unsupported, match="normalizes over channels together"):
        channel_groups(normalized, torch.rand(1, 3, 32, 32))


def test_without_the_library_it_says_what_to_install(images, view, monkeypatch):
    load = builtins.__import__

    def refuse(name, *arguments, **more):
        if name == "torch_pruning":
            raise ImportError(name)
        return load(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(Unsupported, match=r"pip install 'edge-adaptation-bench\[pruning\]'"):
        prepared(images, view)
