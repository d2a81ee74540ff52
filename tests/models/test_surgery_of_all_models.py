"""Surgery on every registered model that declares blocks, in the sizes of `bench check`."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.conformance.model_fixture import SAMPLES, ModelFixture
from bench.contracts.data import Inputs, take
from bench.contracts.model import FoundationModel
from bench.errors import Unsupported
from bench.models.surgery.gates import importance, insert_gates, require_gateable, set_sparsity
from bench.models.surgery.lora import fuse_lora, insert_lora
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.masking import require_prunable
from bench.models.surgery.proxy import make_proxy, most_important
from bench.models.surgery.pruning import cut, strongest, strongest_heads

NARROW, FEWER = "narrower heads", "fewer heads"
CHOICES: dict[str, Any] = {NARROW: strongest, FEWER: strongest_heads}
CANNOT = {
    ("sam", NARROW): "is shared by all heads: cut whole heads",
    ("sam-prompted", NARROW): "is shared by all heads: cut whole heads",
    ("grounding-dino", FEWER): "have a number for each of 2 heads",
    ("t5", FEWER): "has a bias for each of its 4 heads",
    ("hf-seq2seq", FEWER): "has a bias for each of its 4 heads",
}
"""What a model's attention cannot, and says."""


NAMES = [
    name
    for name, entry in registry.entries("model").items()
    if entry.facts.get("task") != "several-tasks"  # a model of models, which are all here
]
WITHOUT = {
    "digits-resnet": "no transformer",
    "digits-modal-lm": "No block is declared for surgery",
    "timm": "Plain vision transformers declare",
    "hf-segmenter": "No family declares blocks",
    "bloom": "alternate head by head",
}
"""Models without blocks (in those sizes), and what their docstring says of it."""


def made(name: str) -> tuple[FoundationModel, Inputs]:
    """A model in evaluation mode, all its linear layers of notable size, and some inputs."""
    for module in getattr(registry.load("model", name), "preload", ()):
        importlib.import_module(module)
    fixture = ModelFixture(name)
    model = fixture.build()
    torch.manual_seed(1)
    with torch.no_grad():
        for layer in model.module.modules():
            if isinstance(layer, nn.Linear):  # small fresh weights would hide mistakes
                layer.weight.normal_(std=layer.in_features**-0.5)
                if layer.bias is not None:
                    layer.bias.normal_(std=0.3)
    return model, fixture.x


def equal(found: Tensor, wanted: Tensor) -> None:
    scale = max(float(wanted.abs().max()), 1.0)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * scale)


WITH_BLOCKS = [
    # The one of full size: the same class in small is vit-segmenter's and small-classifier's.
    pytest.param(name, marks=[pytest.mark.slow] if name == "vit_base_patch16_224" else [])
    for name in NAMES
    if name not in WITHOUT
]


@pytest.mark.parametrize("name", WITHOUT)
def test_a_model_without_blocks_says_why(name: str) -> None:
    assert ModelFixture(name).model.blocks() == []
    # A model that is another one under a name of its own has that one's reason.
    docs = (kind.__doc__ or "" for kind in registry.load("model", name).__mro__)
    assert WITHOUT[name] in " ".join(" ".join(docs).split())


@pytest.mark.parametrize("name", WITH_BLOCKS)
@torch.no_grad()
def test_lora_that_is_inserted_or_fused_changes_nothing(name: str) -> None:
    model, x = made(name)
    before = model(x)
    parameters = insert_lora(model, rank=2, alpha=4)
    equal(model(x), before)
    for p in parameters:
        p.normal_(std=0.2)
    trained = model(x)
    assert not torch.allclose(trained, before, atol=1e-3)
    fuse_lora(model)
    equal(model(x), trained)


@pytest.mark.parametrize("heads", CHOICES)
@pytest.mark.parametrize("name", WITH_BLOCKS)
@torch.no_grad()
def test_a_cut_model_is_its_masked_twin_and_one_cut_by_nothing_itself(
    name: str, heads: str
) -> None:
    model, x = made(name)
    choose = CHOICES[heads]
    before = model(x)
    cut(model, choose(model, 1))
    assert torch.equal(model(x), before)
    if (name, heads) in CANNOT:
        with pytest.raises(Unsupported, match=CANNOT[name, heads]):
            require_prunable(model, x, choose, 2)
        return
    require_prunable(model, x, choose, 2)
    size = sum(p.numel() for p in model.module.parameters())
    cut(model, choose(model, 2))
    assert sum(p.numel() for p in model.module.parameters()) < size
    assert not torch.allclose(model(x), before, atol=1e-3)


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("name", WITH_BLOCKS)
@torch.no_grad()
def test_a_proxy_computes_for_its_sample_what_the_gated_model_does(
    name: str, low_rank: bool
) -> None:
    model, x = made(name)
    require_gateable(model, x)
    if low_rank:
        factorise(model)
    insert_gates(model)
    assert {len(each) for each in importance(model, x).values()} == {SAMPLES}
    sample = take(x, torch.tensor([1]))
    for sparsity in (0.0, 0.5):
        set_sparsity(model, sparsity)
        one = {layer: each[0] for layer, each in importance(model, sample).items()}
        proxy, _ = make_proxy(model, one, most_important(one, sparsity))
        equal(proxy(sample), model(sample))
