"""The generic adapter of timm: it builds what is named, and refuses an unknown name."""

from __future__ import annotations

import pytest
import torch

from bench import registry
from bench.errors import BenchError
from bench.models.timm_model import TimmConfig, TimmModel


@pytest.mark.parametrize(("name", "head"), [("resnet18", "fc"), ("mobilenetv2_100", "classifier")])
def test_a_network_is_built_by_its_name_with_its_own_head(name: str, head: str) -> None:
    model = TimmModel.build(TimmConfig(architecture=name), (1, 32, 32), 3)
    assert model.head_name == head
    assert model.blocks() == []
    outputs, features = model.with_features(torch.rand(2, 1, 32, 32))
    assert outputs.shape == (2, 3)
    assert torch.equal(model.head(features), outputs)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BenchError, match="unknown architecture 'resnet_18': did you mean 'resnet"):
        TimmModel.build(TimmConfig(architecture="resnet_18"), (3, 32, 32), 3)


def test_it_is_found_in_the_registry() -> None:
    assert registry.load("model", "timm") is TimmModel
