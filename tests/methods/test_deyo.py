"""DeYO against Lee et al. (ICLR 2024), eqs. (7), (8) and (10), in plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from bench.errors import Unsupported
from bench.methods.deyo import Deyo, DeyoConfig, shuffled_patches
from bench.testing import TinyModel
from bench.testing.parts import TinyNet

SIDE = 8


def fresh() -> TinyNet:
    torch.manual_seed(0)
    return TinyNet(SIDE * SIDE, 8, 3).double()


@pytest.fixture
def images():
    draw = torch.Generator().manual_seed(3)
    return 2 * torch.randn(24, 1, SIDE, SIDE, generator=draw, dtype=torch.float64)


@pytest.fixture
def network():
    return TinyModel(fresh())


def test_patches_change_places_and_nothing_else(images):
    found = shuffled_patches(images, 4, torch.Generator().manual_seed(1))
    order = torch.rand(24, 16, generator=torch.Generator().manual_seed(1)).argsort(dim=1)
    assert not torch.equal(found, images)
    for i, image in enumerate(images[:, 0]):
        for place in range(16):
            row, column = divmod(place, 4)
            origin_row, origin_column = divmod(int(order[i, place]), 4)
            mine = found[i, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            its = image[2 * origin_row :, 2 * origin_column :][:2, :2]
            assert torch.equal(mine, its)


def test_sizes_that_do_not_divide_are_kept(images):
    found = shuffled_patches(images[:, :, :7, :6], 4, torch.Generator().manual_seed(1))
    assert found.shape == (24, 1, 7, 6)


def plain_deyo(net, batches, config):
    """Weights after SGD with momentum, and how often each fate was met."""
    draw = torch.Generator().manual_seed(0)
    velocity = [torch.zeros_like(p) for p in net.norm.parameters()]
    fates = []
    for x in batches:
        p = net(x).softmax(dim=1)
        h = [-sum(v * torch.log(v) for v in row) for row in p]
        certain = [i for i in range(len(x)) if h[i] < config.entropy_share * math.log(3)]
        with torch.no_grad():
            after = net(shuffled_patches(x[certain], config.patches, draw)).softmax(dim=1)
        loss, chosen = 0.0, 0
        for place, i in enumerate(certain):
            label = int(p[i].argmax())
            difference = float(p[i, label].detach() - after[place, label])
            fates.append(difference > config.difference)
            if difference > config.difference:
                margin = config.weight_share * math.log(3)
                weight = 1 / math.exp(float(h[i].detach()) - margin) + 1 / math.exp(-difference)
                loss, chosen = loss + weight * h[i], chosen + 1
        fates += [None] * (len(x) - len(certain))
        if not chosen:
            continue
        for i, (w, g) in enumerate(
            zip(
                net.norm.parameters(),
                torch.autograd.grad(loss / chosen, list(net.norm.parameters())),
                strict=True,
            )
        ):
            velocity[i] = 0.9 * velocity[i] + g
            with torch.no_grad():
                w -= config.learning_rate * velocity[i]
    return [w.detach() for w in net.norm.parameters()], fates


def test_updates_are_those_of_the_formula(network, images, view, adapt):
    config = DeyoConfig(learning_rate=0.05, entropy_share=0.9, difference=0.08, frozen_blocks=0)
    net = fresh()
    batches = [batch.x for batch in view(images, batch_size=8).batches()]
    weights, fates = plain_deyo(net, batches, config)
    assert set(fates) == {True, False, None}  # kept, certain but not by shape, not certain
    method = Deyo(config)
    method.prepare(network, view(images))
    adapt(method, view(images, batch_size=8))
    found = list(network.module.norm.parameters())
    start = list(fresh().norm.parameters())
    assert not torch.allclose(found[0], start[0])
    for mine, plain in zip(found, weights, strict=True):
        torch.testing.assert_close(mine.detach(), plain, rtol=1e-6, atol=1e-9)


def test_a_batch_without_a_selected_sample_changes_nothing(network, images, view, adapt):
    method = Deyo(DeyoConfig(difference=1.0, frozen_blocks=0))
    method.prepare(network, view(images))
    before = [p.detach().clone() for p in network.module.parameters()]
    adapt(method, view(images, batch_size=8))
    assert all(map(torch.equal, before, network.module.parameters()))


def test_data_without_patches_are_refused(model, data, view):
    with pytest.raises(Unsupported, match="deyo shuffles the patches of images"):
        Deyo(DeyoConfig()).prepare(model, view(data(4)[0]))
