"""Neuron pairs: which layers meet, and cutting equals multiplying by zero."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.errors import BenchError
from bench.models.surgery.gates import insert_gates
from bench.models.surgery.linear import linear_at
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.neurons import Pair, Slice, pairs, slice_pairs


def test_feed_forward_layers_and_factors_are_the_pairs(made) -> None:
    model, _ = made
    blocks = model.blocks()
    forward = [Pair(b.ff_in, b.ff_out) for b in blocks]
    assert pairs(model) == forward
    factorise(model)
    factors = {Pair(f"{n}.down", f"{n}.up") for b in blocks for n in (*b.qkv, b.out)}
    assert pairs(model)[: len(blocks)] == forward
    assert set(pairs(model)[len(blocks) :]) == factors
    assert len(pairs(model)) == len(blocks) + len(factors)
    for pair in pairs(model):
        assert linear_at(model, pair.inner).out_features == linear_at(model, pair.outer).in_features


def every_second(model) -> dict[str, Tensor]:
    return {
        p.inner: torch.arange(linear_at(model, p.inner).out_features)[::2] for p in pairs(model)
    }


@pytest.mark.parametrize("generation", [1, 2])
@pytest.mark.parametrize("gated", [False, True])
def test_cutting_neurons_equals_zeroing_them(made, generation, gated) -> None:
    model, x = made
    if generation == 2:
        factorise(model)
    if gated:
        insert_gates(model)
    kept = every_second(model)
    twin = model.clone()
    with torch.no_grad():
        for pair in pairs(twin):
            inner = linear_at(twin, pair.inner)
            inner.weight[1::2] = 0
            if inner.bias is not None:
                inner.bias[1::2] = 0
        slices = slice_pairs(model, kept)
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)
        original = dict(twin.module.named_parameters())
        changed = {n for n, p in model.module.named_parameters() if p.shape != original[n].shape}
        assert set(slices) == changed
        for name, p in model.module.named_parameters():
            if name in slices:
                torch.testing.assert_close(slices[name].gather(original[name]), p)


def test_keeping_all_neurons_changes_no_output(made) -> None:
    model, x = made
    with torch.no_grad():
        before = model(x)
        slice_pairs(model, {})
        assert torch.equal(model(x), before)
        whole = {p.inner: torch.arange(linear_at(model, p.inner).out_features)
                 for p in pairs(model)}  # fmt: skip
        slice_pairs(model, whole)
        assert torch.equal(model(x), before)


def test_a_name_that_begins_no_pair_is_refused_with_the_nearest(made) -> None:
    model, _ = made
    inner = model.blocks()[0].ff_in
    with pytest.raises(BenchError, match=f"no neuron pair begins at .*did you mean '{inner}'"):
        slice_pairs(model, {inner + "x": torch.tensor([0])})


def ids(limit: int) -> st.SearchStrategy[Tensor | None]:
    some = st.sets(st.integers(0, limit - 1), min_size=1).map(lambda s: torch.tensor(sorted(s)))
    return st.none() | some


@given(ids(4), ids(5))
def test_what_is_gathered_can_be_scattered_back(rows: Tensor | None, columns: Tensor | None):
    part, into = Slice(rows, columns), torch.arange(20.0).view(4, 5)
    gathered = part.gather(into)
    r = range(4) if rows is None else rows.tolist()
    c = range(5) if columns is None else columns.tolist()
    assert gathered.tolist() == [[into[i, j].item() for j in c] for i in r]
    assert torch.equal(part.scatter(into, gathered), into)
    filled = part.scatter(into, -1 - gathered)
    assert torch.equal(into, torch.arange(20.0).view(4, 5))
    for i in range(4):
        for j in range(5):
            sign = -1 - into[i, j] if i in r and j in c else into[i, j]
            assert filled[i, j] == sign


@given(ids(4))
def test_biases_have_rows_only(rows: Tensor | None) -> None:
    part, into = Slice(rows, None), torch.arange(4.0)
    r = range(4) if rows is None else rows.tolist()
    assert part.gather(into).tolist() == list(r)
    assert part.scatter(into, part.gather(into) + 10).tolist() == [
        i + 10 if i in r else i for i in range(4)
    ]
