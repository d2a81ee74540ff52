"""Static pruning: selections by loops, and a cut model equals its masked twin."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from bench.contracts.model import Block, FoundationModel
from bench.errors import BenchError
from bench.models.digits_vit import DigitsViT, DigitsViTConfig
from bench.models.surgery.pruning import Kept, cut, strongest, strongest_heads


def layer(model: FoundationModel, name: str) -> nn.Linear:
    found = model.module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def qkv_rows(model: FoundationModel, block: Block) -> list[Tensor]:
    """Weights of query, key and value, (d, in) each."""
    weights = [layer(model, name).weight.detach() for name in block.qkv]
    return list(weights[0].split(len(weights[0]) // 3)) if block.fused else weights


def top(norms: list[float], count: int) -> list[int]:
    return sorted(sorted(range(len(norms)), key=lambda i: (-norms[i], i))[:count])


def l1(row: Tensor) -> float:
    return float(row.detach().abs().sum())


@torch.no_grad()
def masked(model: FoundationModel, kept: list[Kept]) -> FoundationModel:
    """A twin of full size in which all that is not kept is zero."""
    twin = model.clone()
    for block, chosen in zip(twin.blocks(), kept, strict=True):
        for name, rows in zip(block.qkv, chosen.qkv, strict=True):
            zero_rows(layer(twin, name), rows)
        zero_rows(layer(twin, block.ff_in), chosen.ff_in)
        for name, columns in ((block.out, chosen.out), (block.ff_out, chosen.ff_out)):
            for i in range(layer(twin, name).in_features):
                if i not in columns.tolist():
                    layer(twin, name).weight[:, i] = 0
    return twin


def zero_rows(linear: nn.Linear, kept: Tensor) -> None:
    for i in range(linear.out_features):
        if i not in kept.tolist():
            linear.weight[i] = 0
            linear.bias[i] = 0


@pytest.mark.parametrize("select", [strongest, strongest_heads])
@pytest.mark.parametrize("ratio", [2, 4])
def test_a_cut_model_equals_its_masked_twin(made, select, ratio) -> None:
    model, x = made
    kept = select(model, ratio)
    with torch.no_grad():
        full, expected = model(x), masked(model, kept)(x)
        cut(model, kept)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    assert float((full - expected).abs().max()) > 1e-2


@pytest.mark.parametrize("select", [strongest, strongest_heads])
@pytest.mark.parametrize("matched", [True, False])
def test_ratio_1_keeps_every_neuron_and_output(made, select, matched) -> None:
    model, x = made
    kept = select(model, 1, matched)
    for block, chosen in zip(model.blocks(), kept, strict=True):
        names = (*block.qkv, block.ff_in)
        for name, rows in zip(names, (*chosen.qkv, chosen.ff_in), strict=True):
            assert rows.tolist() == list(range(layer(model, name).out_features))
    names_before = {n: p.shape for n, p in model.module.named_parameters()}
    with torch.no_grad():
        before = model(x)
        cut(model, kept)
        torch.testing.assert_close(model(x), before, rtol=0, atol=0)
    assert {n: p.shape for n, p in model.module.named_parameters()} == names_before


@pytest.mark.parametrize("ratio", [2, 4])
def test_inner_widths_are_divided_and_the_outer_ones_stay(made, ratio) -> None:
    model, x = made
    before = model.clone()
    cut(model, strongest(model, ratio))
    for block, old in zip(model.blocks(), before.blocks(), strict=True):
        assert block == old
        for name in (*block.qkv, block.ff_in):
            now, was = layer(model, name), layer(before, name)
            assert now.out_features * ratio == was.out_features == len(was.bias)
            assert tuple(now.weight.shape) == (now.out_features, was.in_features)
        for name in (block.out, block.ff_out):
            now, was = layer(model, name), layer(before, name)
            assert now.in_features * ratio == was.in_features
            assert tuple(now.weight.shape) == (was.out_features, now.in_features)
    model(x).sum().backward()
    assert all(
        layer(model, n).weight.grad is not None for b in model.blocks() for n in (*b.qkv, b.ff_out)
    )


def test_matched_selection_by_loops(made) -> None:
    model, _ = made
    for block, kept in zip(model.blocks(), strongest(model, 2), strict=True):
        q, k, v = qkv_rows(model, block)
        out = layer(model, block.out).weight.detach()
        width, d = len(q) // block.heads, len(q)
        qk_ids: list[int] = []
        v_ids: list[int] = []
        for head in range(block.heads):
            rows = range(head * width, (head + 1) * width)
            qk_ids += [rows[i] for i in top([l1(q[r]) + l1(k[r]) for r in rows], width // 2)]
            v_ids += [rows[i] for i in top([l1(v[r]) + l1(out[:, r]) for r in rows], width // 2)]
        if block.fused:
            expected = [qk_ids + [d + i for i in qk_ids] + [2 * d + i for i in v_ids]]
        else:
            expected = [qk_ids, qk_ids, v_ids]
        assert [rows.tolist() for rows in kept.qkv] == expected
        assert kept.out.tolist() == v_ids
        up, down = layer(model, block.ff_in).weight, layer(model, block.ff_out).weight
        both = top([l1(up[i]) + l1(down[:, i]) for i in range(len(up))], len(up) // 2)
        assert kept.ff_in.tolist() == kept.ff_out.tolist() == both
        assert kept.heads == block.heads


def test_unmatched_selection_by_loops(made) -> None:
    """Each layer by itself; a fused one over query, key and value together."""
    model, x = made
    unequal = False
    for block, kept in zip(model.blocks(), strongest(model, 2, matched=False), strict=True):
        for name, rows in zip((*block.qkv, block.ff_in), (*kept.qkv, kept.ff_in), strict=True):
            weight = layer(model, name).weight
            assert rows.tolist() == top([l1(row) for row in weight], len(weight) // 2)
        for name, columns in ((block.out, kept.out), (block.ff_out, kept.ff_out)):
            weight = layer(model, name).weight
            assert columns.tolist() == top([l1(c) for c in weight.t()], weight.shape[1] // 2)
        unequal |= kept.ff_in.tolist() != kept.ff_out.tolist()
    assert unequal
    cut(model, strongest(model, 2, matched=False))
    assert model(x).shape == (6, 5)


@torch.no_grad()
def test_the_scale_is_folded_into_query_and_key_alike(made) -> None:
    model, _ = made
    before, kept = model.clone(), strongest(model, 4, matched=False)
    cut(model, kept)
    for block, chosen in zip(before.blocks(), kept, strict=True):
        for part, (name, rows) in enumerate(zip(block.qkv, chosen.qkv, strict=True)):
            factor = torch.ones(len(rows))
            if block.fused:
                factor[: 2 * len(rows) // 3] = (1 / 4) ** 0.25
            elif part < 2:
                factor[:] = (1 / 4) ** 0.25
            now, was = layer(model, name), layer(before, name)
            torch.testing.assert_close(now.weight, was.weight[rows] * factor.unsqueeze(1))
            torch.testing.assert_close(now.bias, was.bias[rows] * factor)


def test_heads_of_largest_norm_by_loops(made) -> None:
    model, _ = made
    for ratio, count in ((2, 2), (4, 1), (8, 1)):
        for block, kept in zip(model.blocks(), strongest_heads(model, ratio), strict=True):
            parts = [*qkv_rows(model, block), layer(model, block.out).weight.detach().t()]
            width = len(parts[0]) // block.heads
            norms = [
                sum(l1(p[r]) for p in parts for r in range(h * width, (h + 1) * width))
                for h in range(block.heads)
            ]
            chosen = top(norms, count)
            ids = [h * width + i for h in chosen for i in range(width)]
            assert kept.heads == count
            assert kept.out.tolist() == ids
            assert kept.qkv[-1].tolist()[-len(ids) :] == [
                i + (2 * len(parts[0]) if block.fused else 0) for i in ids
            ]


def test_cutting_heads_leaves_their_width_and_tells_the_attention(made) -> None:
    model, _ = made
    widths = [layer(model, b.out).in_features // b.heads for b in model.blocks()]
    cut(model, strongest_heads(model, 2))
    for block, width in zip(model.blocks(), widths, strict=True):
        assert block.heads == 2
        assert layer(model, block.out).in_features == 2 * width


def test_a_model_can_be_cut_twice(made) -> None:
    model, x = made
    cut(model, strongest_heads(model, 2))
    kept = strongest(model, 2)
    with torch.no_grad():
        expected = masked(model, kept)(x)
        cut(model, kept)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


def test_attention_that_is_not_fused_scales_alike(made) -> None:
    """Both ways in which a library computes attention see the new width."""
    model, x = made
    cut(model, strongest(model, 2))
    with torch.no_grad():
        before = model(x)
        for block in model.blocks():
            attention = model.module.get_submodule(block.attention)
            attention.fused_attn = False
        if hasattr(model.module, "set_attn_implementation"):
            model.module.set_attn_implementation("eager")
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-5)


class Blockless(DigitsViT):
    def blocks(self) -> list[Block]:
        return []


def vit(**sizes: int) -> DigitsViT:
    config = DigitsViTConfig(**{"patch": 8, "width": 24, "depth": 2, "heads": 2, **sizes})
    return DigitsViT.build(config, (1, 16, 16), 3)


@pytest.mark.parametrize("select", [strongest, strongest_heads])
def test_no_blocks_and_a_ratio_below_1_are_refused(select) -> None:
    with pytest.raises(BenchError, match="Blockless declares no blocks; implement blocks"):
        select(Blockless(vit().module), 2)
    with pytest.raises(BenchError, match="ratio 0 would widen the model; use 1 or more"):
        select(vit(), 0)


def test_widths_that_do_not_divide_are_refused_by_name() -> None:
    with pytest.raises(BenchError, match=r"blocks\.0\.attn\.qkv has head width 12, not .*ratio 5"):
        strongest(vit(), 5)
    with pytest.raises(BenchError, match=r"blocks\.0\.mlp\.fc1 has width 96, not .*ratio 9; use"):
        strongest_heads(vit(), 9)
    with pytest.raises(BenchError, match=r"blocks\.0\.attn\.proj has heads 6, not .* by ratio 4"):
        strongest_heads(vit(heads=6), 4)


def test_selections_that_do_not_fit_are_refused() -> None:
    model = vit()
    kept = strongest(model, 2)
    with pytest.raises(BenchError, match="1 selections for 2 blocks"):
        cut(model, kept[:1])
    with pytest.raises(BenchError, match=r"qkv would keep 12 rows for 5 heads"):
        cut(model, [dataclasses.replace(k, heads=5) for k in kept])
    with pytest.raises(BenchError, match=r"proj would keep 11 columns for 12 rows"):
        cut(model, [dataclasses.replace(k, out=k.out[1:]) for k in kept])


def test_a_model_that_cannot_resize_its_attention_says_what_to_implement() -> None:
    class Stiff(DigitsViT):
        resize_attention = FoundationModel.resize_attention

    model = Stiff(vit().module)
    with pytest.raises(BenchError, match=r"Stiff: its attention cannot change width; implement"):
        cut(model, strongest(model, 2))
