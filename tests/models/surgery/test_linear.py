"""Linear layers by name: cutting keeps ids, sizes and what learns; strongest neurons by loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.errors import BenchError
from bench.models.surgery.linear import (
    WrappedLinear,
    cut_linear,
    largest,
    linear_at,
    replace_module,
)


def test_rows_and_columns_are_cut_in_the_order_given() -> None:
    layer = nn.Linear(4, 3)
    weight, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    cut_linear(layer, rows=torch.tensor([2, 0]), columns=torch.tensor([1, 3, 0]))
    assert (layer.in_features, layer.out_features) == (3, 2)
    for i, row in enumerate((2, 0)):
        assert layer.bias[i] == bias[row]
        for j, column in enumerate((1, 3, 0)):
            assert layer.weight[i, j] == weight[row, column]


def test_a_layer_without_bias_and_a_frozen_one_stay_so() -> None:
    layer = nn.Linear(4, 3, bias=False).requires_grad_(False)
    cut_linear(layer, rows=torch.tensor([1]))
    assert layer.bias is None
    assert isinstance(layer.weight, nn.Parameter)
    assert not layer.weight.requires_grad


def test_cut_weights_hold_no_memory_of_the_whole() -> None:
    layer = nn.Linear(4, 3)
    cut_linear(layer, columns=torch.tensor([1]))
    assert layer.weight.untyped_storage().nbytes() == 3 * 4


def test_the_layer_inside_a_wrapper_is_found(made) -> None:
    model, _ = made
    name = model.blocks()[0].ff_in
    layer = linear_at(model, name)
    replace_module(model, name, WrappedLinear(layer))
    assert linear_at(model, name) is layer
    replace_module(model, name, nn.Identity())
    with pytest.raises(BenchError, match=f"{name} is Identity, not a plain Linear"):
        linear_at(model, name)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.data())
def test_the_largest_scores_by_hand(scores: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(scores)))
    chosen = sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count])
    assert largest(torch.tensor(scores), count).tolist() == chosen
