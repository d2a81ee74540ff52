"""Gates: importance by the formula, k-takes-all by counting, and what masking leaves."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench import FoundationModel, registry
from bench.errors import BenchError
from bench.models.surgery.gates import (
    Gate,
    GatedLinear,
    gated_layers,
    importance,
    insert_gates,
    keep_largest,
    recorded,
    set_sparsity,
)
from bench.models.surgery.linear import linear_at
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.neurons import pairs


def build_small(name: str, shape: tuple[int, ...]) -> FoundationModel:
    found = registry.load("model", name)
    model: FoundationModel = found.build(found.Config(), shape, 3)
    return model


share = st.floats(0, 1, exclude_max=True, allow_nan=False)


def test_importance_by_the_formula() -> None:
    torch.manual_seed(0)
    gate = Gate(3, 8, reduction=4).double()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    w1, b1, w2, b2 = (p.detach() for p in gate.parameters())
    assert (tuple(w1.shape), tuple(w2.shape)) == ((2, 3), (8, 2))
    for n in range(2):
        mean = [sum(abs(x[n, t, i].item()) for t in range(5)) / 5 for i in range(3)]
        hidden = [max(sum(w1[j, i].item() * mean[i] for i in range(3)) + b1[j].item(), 0)
                  for j in range(2)]  # fmt: skip
        for m in range(8):
            g = max(sum(w2[m, j].item() * hidden[j] for j in range(2)) + b2[m].item(), 0)
            assert gate(x)[n, m].item() == pytest.approx(g)
    assert torch.equal(gate(x[:, 0]), gate(x[:, :1]))


@pytest.mark.parametrize("name", ["small-classifier", "small-tagger"])
def test_padding_does_not_count(name: str) -> None:
    """A text of 3 words has the importances of the same text in 7 places, 4 of them padding."""
    torch.manual_seed(0)
    model = build_small(name, (7,))
    insert_gates(model, 4)
    model.module.double()
    ids = torch.tensor([[5, 9, 3, 0, 0, 0, 0], [4, 4, 8, 1, 7, 2, 6]])
    mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    found = importance(model, {"input_ids": ids, "attention_mask": mask})
    alone = importance(model, {"input_ids": ids[:1, :3], "attention_mask": torch.ones(1, 3).long()})
    whole = importance(model, {"input_ids": ids, "attention_mask": torch.ones(2, 7).long()})
    for layer, values in alone.items():
        assert torch.allclose(found[layer][:1], values)
        assert torch.allclose(found[layer][1:], whole[layer][1:])
        assert not torch.allclose(whole[layer][:1], values)
    assert all(layer.mask is None for layer in gated_layers(model).values())
    assert gated_layers(model.clone()).keys() == alone.keys()


def test_a_fresh_gate_is_kaiming_normal_with_bias_1_and_a_bottleneck_of_at_least_1() -> None:
    torch.manual_seed(0)
    gate = Gate(4, 3200, reduction=16)
    assert gate.down.out_features == 200
    assert gate.up.weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.01)
    assert gate.up.bias.tolist() == [1.0] * 3200
    assert Gate(4, 6).down.out_features == 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=3), share)
def test_the_smallest_are_zeroed_and_of_equals_the_last(rows: list, sparsity: float) -> None:
    g = torch.tensor(rows, dtype=torch.float32)
    kept = keep_largest(g, sparsity)
    for row, result in zip(rows, kept.tolist(), strict=True):
        order = sorted(range(7), key=lambda i: (row[i], -i))
        dropped = order[: math.floor(7 * sparsity)]
        assert result == [0 if i in dropped else row[i] for i in range(7)]


@given(st.integers(1, 40), share)
def test_exactly_as_many_as_asked_are_zeroed_even_if_all_are_equal(m: int, sparsity: float) -> None:
    kept = keep_largest(torch.ones(2, m), sparsity)
    assert (kept == 0).sum(dim=1).tolist() == [math.floor(m * sparsity)] * 2
    assert (kept > 0).any()


def test_sparsity_0_is_the_identity_and_zeroed_entries_get_no_gradient() -> None:
    g = torch.tensor([[0.5, 2.0, 1.0, 0.0]], requires_grad=True)
    assert keep_largest(g, 0.0) is g
    keep_largest(g, 0.5).sum().backward()
    assert g.grad is not None
    assert g.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_sparsity_outside_its_range_is_refused(made, sparsity) -> None:
    with pytest.raises(BenchError, match=rf"sparsity {sparsity} is not in \[0, 1\)"):
        keep_largest(torch.ones(1, 4), sparsity)
    insert_gates(made[0])
    with pytest.raises(BenchError, match="is not in"):
        set_sparsity(made[0], sparsity)


@pytest.mark.parametrize("shape", [(3, 4), (3, 6, 4), (3, 2, 6, 4)])
def test_outputs_are_the_layers_times_its_kept_importance(shape) -> None:
    torch.manual_seed(0)
    layer = GatedLinear(nn.Linear(4, 8))
    layer.sparsity = 0.5
    x = torch.randn(shape)
    factors = keep_largest(layer.gate(x), 0.5)
    for n in range(3):
        torch.testing.assert_close(layer(x)[n], layer.linear(x[n]) * factors[n])
        assert int((layer(x)[n].reshape(-1, 8) == 0).all(dim=0).sum()) >= 4


@pytest.mark.parametrize("generation", [1, 2])
def test_every_pair_gets_a_gate_whose_parameters_are_returned(made, generation) -> None:
    model, x = made
    if generation == 2:
        factorise(model)
    before, found = {id(p) for p in model.module.parameters()}, pairs(model)
    parameters = insert_gates(model, reduction=8)
    assert len(parameters) == 4 * len(found)
    assert {id(p) for p in model.module.parameters()} == before | {id(p) for p in parameters}
    assert pairs(model) == found
    for pair in found:
        assert isinstance(model.module.get_submodule(pair.inner), GatedLinear)
        assert linear_at(model, pair.inner) is model.module.get_submodule(pair.inner + ".linear")
    model(x).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def test_gates_of_1_change_no_output(made) -> None:
    model, x = made
    with torch.no_grad():
        before = model(x)
        for p in insert_gates(model):
            p.zero_()
        for name, gates in importance(model, x).items():
            assert not gates.any(), name
        for pair in pairs(model):
            model.module.get_submodule(pair.inner).gate.up.bias.fill_(1.0)
        torch.testing.assert_close(model(x), before, rtol=0, atol=1e-6)


def test_importance_is_read_at_the_current_sparsity_and_leaves_no_trace(made) -> None:
    model, x = made
    insert_gates(model)
    model.train(True)
    at_0 = importance(model, x)
    set_sparsity(model, 0.5)
    at_half = importance(model, x)
    assert model.module.training
    inner = [pair.inner for pair in pairs(model)]
    assert list(at_0) == list(at_half) == inner
    assert at_0[inner[0]].shape == (6, linear_at(model, inner[0]).out_features)
    assert torch.equal(at_0[inner[0]], at_half[inner[0]])  # the first gate sees the same input
    assert not torch.equal(at_0[inner[1]], at_half[inner[1]])
    for name in inner:
        assert not at_0[name].requires_grad
        assert not model.module.get_submodule(name).gate._forward_hooks


def test_recorded_gates_carry_gradients(made) -> None:
    model, x = made
    parameters = insert_gates(model)
    with recorded(model) as gates:
        assert not gates
        model(x)
    sum(g.abs().sum() for g in gates.values()).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def test_gates_are_inserted_once_and_asked_for_where_they_are(made) -> None:
    model, _ = made
    with pytest.raises(BenchError, match=r"has none; call insert_gates\(\) first"):
        set_sparsity(model, 0.5)
    insert_gates(model)
    with pytest.raises(BenchError, match="has a gate already; insert gates once"):
        insert_gates(model)
    model.blocks = list
    bare = model.clone()
    bare.module = nn.Linear(2, 2)
    with pytest.raises(BenchError, match="declares no blocks"):
        insert_gates(bare)
