"""The small ResNet: its size, its BatchNorm, and that it learns the source in a few epochs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench import registry
from bench.errors import BenchError
from bench.models.digits_resnet import DigitsResNet, DigitsResNetConfig


@pytest.fixture(scope="module")
def model() -> DigitsResNet:
    torch.manual_seed(0)
    return DigitsResNet.build(DigitsResNetConfig(), (1, 32, 32), 10)


def test_its_size_and_its_normalization(model: DigitsResNet) -> None:
    assert sum(p.numel() for p in model.module.parameters()) == 157_650
    layers = [m for m in model.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(model.normalization_parameters()) == 2 * len(layers) == 28
    assert model.least_batch == 2
    assert model.blocks() == []
    assert registry.load("model", "digits-resnet") is DigitsResNet


def test_features_are_what_the_head_is_given(model: DigitsResNet) -> None:
    model.eval()
    outputs, features = model.with_features(torch.rand(3, 1, 32, 32))
    assert features.shape == (3, 64)
    assert torch.equal(model.head(features), outputs)


@pytest.mark.parametrize(("shape", "classes"), [((1, 16, 16), 4), ((3, 64, 64), 7)])
def test_other_images_and_classes(shape: tuple[int, ...], classes: int) -> None:
    model = DigitsResNet.build(DigitsResNetConfig(width=8), shape, classes)
    assert model(torch.rand(2, *shape)).shape == (2, classes)


def test_images_alone_are_taken() -> None:
    with pytest.raises(BenchError, match=r"\(64,\) are no images .*choose a stream of images"):
        DigitsResNet.build(DigitsResNetConfig(), (64,), 10)


def test_a_few_epochs_teach_it_the_digits() -> None:
    stream_class = registry.load("stream", "digits-shift")
    source = stream_class(stream_class.Config(size=16), 0).source()
    torch.manual_seed(0)
    model = DigitsResNet.build(DigitsResNetConfig(), (1, 16, 16), 10)
    optimizer = torch.optim.AdamW(model.module.parameters(), 3e-3)
    for _ in range(6):
        for chosen in torch.randperm(len(source.adaptation)).split(64)[:-1]:
            loss = model.loss(model(source.adaptation.x[chosen]), source.adaptation.y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        hits = (model(source.test.x).argmax(dim=1) == source.test.y).float()
    assert float(hits.mean()) > 0.95
