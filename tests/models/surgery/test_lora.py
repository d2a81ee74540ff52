"""LoRA surgery: insertion and fusion change no output; only the adapters learn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.models.surgery.lora import LoraLinear, fuse_lora, insert_lora


@pytest.fixture
def vit():
    torch.manual_seed(0)
    config = DigitsViTConfig(patch=8, width=24, depth=2, heads=2)
    model = DigitsViT.build(config, (1, 32, 32), 10)
    model.train(False)
    return model


@pytest.fixture
def x():
    return torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_insertion_changes_no_output(vit, x):
    with torch.no_grad():
        before = vit(x)
        insert_lora(vit, rank=4, alpha=8)
        torch.testing.assert_close(vit(x), before, rtol=0, atol=1e-5)


def test_fusion_of_trained_adapters_changes_no_output_and_restores_the_layers(vit, x):
    names = [n for n, _ in vit.module.named_parameters()]
    parameters = insert_lora(vit, rank=4, alpha=8)
    with torch.no_grad():
        for p in parameters:
            p.normal_(std=0.1, generator=torch.Generator().manual_seed(p.numel()))
        trained = vit(x)
        fuse_lora(vit)
        torch.testing.assert_close(vit(x), trained, rtol=0, atol=1e-5)
    assert [n for n, _ in vit.module.named_parameters()] == names
    assert not any(isinstance(m, LoraLinear) for m in vit.module.modules())


def test_each_part_of_a_fused_layer_has_its_own_product():
    torch.manual_seed(0)
    base = nn.Linear(5, 6).double()
    layer = LoraLinear(base, rank=2, scale=0.5, parts=3)
    with torch.no_grad():
        for p in layer.up:
            p.normal_()
    x = torch.randn(5, dtype=torch.float64)
    expected = base(x).detach().tolist()
    for part in range(3):
        for row in range(2):
            for r in range(2):
                inner = sum(layer.down[part][r, i].item() * x[i].item() for i in range(5))
                expected[2 * part + row] += 0.5 * layer.up[part][row, r].item() * inner
    torch.testing.assert_close(layer(x).detach(), torch.tensor(expected, dtype=torch.float64))


def test_two_parameters_for_each_of_q_k_v_in_every_block(vit):
    parameters = insert_lora(vit, rank=4, alpha=8)
    assert len(parameters) == 2 * 3 * len(vit.blocks())
    assert sum(p.numel() for p in parameters) == 2 * 3 * (4 * 24 + 24 * 4)


def test_a_rank_above_the_width_is_refused(vit):
    with pytest.raises(BenchError, match="rank 99"):
        insert_lora(vit, rank=99, alpha=8)


def test_inserting_and_fusing_on_every_model_change_no_output(made):
    model, x = made
    with torch.no_grad():
        before = model(x)
        parameters = insert_lora(model, rank=4, alpha=8)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)
        for p in parameters:
            p.normal_(std=0.05)
        trained = model(x)
        fuse_lora(model)
        torch.testing.assert_close(model(x), trained, rtol=0, atol=1e-5)
    assert float((trained - before).abs().max()) > 1e-2
