"""Low-rank factors: full rank changes nothing, and what truncation leaves is the best there is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.errors import BenchError
from bench.models.surgery.low_rank import LowRankLinear, break_even_rank, factorise


def test_full_rank_changes_no_output(made) -> None:
    model, x = made
    with torch.no_grad():
        before = model(x)
        factorise(model, rank=model.module.get_submodule(model.blocks()[0].out).in_features)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


def test_attention_layers_are_replaced_and_no_others(made) -> None:
    model, x = made
    blocks = model.blocks()
    names = {n for n, m in model.module.named_modules() if isinstance(m, nn.Linear)}
    factorise(model)
    replaced = {n for n, m in model.module.named_modules() if isinstance(m, LowRankLinear)}
    assert replaced == {n for b in blocks for n in (*b.qkv, b.out)}
    left = {n for n, m in model.module.named_modules() if isinstance(m, nn.Linear)}
    assert left == (names - replaced) | {f"{n}.{p}" for n in replaced for p in ("down", "up")}
    assert model.blocks() == blocks
    assert model(x).shape == (6, 5)


def test_truncation_loses_the_smallest_singular_values_and_splits_the_others_evenly() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(9, 7)
    factors = LowRankLinear(layer, rank=3)
    singular = torch.linalg.svdvals(layer.weight.detach())
    down, up = factors.down.weight.detach(), factors.up.weight.detach()
    assert (tuple(down.shape), tuple(up.shape)) == ((3, 9), (7, 3))
    error = (up @ down - layer.weight.detach()).square().sum()
    assert float(error) == pytest.approx(float(singular[3:].square().sum()), rel=1e-4)
    torch.testing.assert_close(down @ down.t(), torch.diag(singular[:3]), rtol=0, atol=1e-5)
    torch.testing.assert_close(up.t() @ up, torch.diag(singular[:3]), rtol=0, atol=1e-5)
    assert factors.down.bias is None
    assert factors.up.bias is layer.bias


def test_a_layer_without_bias_gets_none() -> None:
    assert LowRankLinear(nn.Linear(9, 7, bias=False), rank=3).up.bias is None


@pytest.mark.parametrize(
    ("inputs", "outputs", "rank"),
    [(768, 768, 384), (768, 2304, 576), (768, 384, 256), (32, 32, 16), (20, 20, 8), (12, 12, 8),
     (6, 40, 6), (24, 72, 16)],
)  # fmt: skip
def test_the_default_rank_keeps_the_number_of_weights(inputs, outputs, rank) -> None:
    assert break_even_rank(inputs, outputs) == rank
    assert break_even_rank(outputs, inputs) == rank
    if inputs >= 24:
        assert rank * (inputs + outputs) <= inputs * outputs


def test_nothing_is_drawn() -> None:
    layer = nn.Linear(9, 7)
    state = torch.get_rng_state()
    LowRankLinear(layer)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_rank_outside_the_layer_is_refused(rank) -> None:
    with pytest.raises(BenchError, match=f"rank {rank} is not between 1 and 7"):
        LowRankLinear(nn.Linear(9, 7), rank)


def test_factors_are_not_factorised_again(made) -> None:
    model, _ = made
    factorise(model)
    with pytest.raises(BenchError, match="is LowRankLinear, not a plain Linear"):
        factorise(model)
