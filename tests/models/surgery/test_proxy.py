"""The proxy computes what the masked knowledge base computes, with the parameters it says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench.contracts.data import Inputs, take
from bench.contracts.model import FoundationModel
from bench.errors import BenchError
from bench.models.surgery.gates import importance, insert_gates, set_sparsity
from bench.models.surgery.linear import linear_at
from bench.models.surgery.low_rank import factorise
from bench.models.surgery.neurons import pairs
from bench.models.surgery.proxy import ScaledLinear, make_proxy, most_important
from bench.models.surgery.pruning import cut, strongest, strongest_heads

SHARES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.fixture(params=[1, 2])
def base(made, request) -> tuple[FoundationModel, Inputs]:
    """A knowledge base of the first generation (feed-forward only) or the second, and a sample."""
    model, x = made
    if request.param == 1:
        cut(model, strongest(model, 2))
    else:
        cut(model, strongest_heads(model, 2))
        factorise(model)
    insert_gates(model)
    return model, take(x, torch.tensor([2]))


def of_one(importances: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: g[0] for name, g in importances.items()}


def proxy_of(model: FoundationModel, sample: Inputs, sparsity: float):
    set_sparsity(model, sparsity)
    importances = of_one(importance(model, sample))
    return make_proxy(model, importances, most_important(importances, sparsity))


@torch.no_grad()
def test_on_its_sample_it_equals_the_masked_knowledge_base_at_every_sparsity(base) -> None:
    model, sample = base
    outputs = []
    for sparsity in SHARES:
        proxy, _ = proxy_of(model, sample, sparsity)
        outputs.append(model(sample))
        torch.testing.assert_close(proxy(sample), outputs[-1], rtol=0, atol=1e-4)
    assert float((outputs[0] - outputs[-1]).abs().max()) > 1e-2


def test_it_has_as_many_neurons_as_remain_and_no_gate(base) -> None:
    model, sample = base
    proxy, _ = proxy_of(model, sample, 0.7)
    assert pairs(proxy) == pairs(model)
    for pair in pairs(proxy):
        m = linear_at(model, pair.inner).out_features
        inner = proxy.module.get_submodule(pair.inner)
        assert isinstance(inner, ScaledLinear)
        left = m - int(m * 0.7)
        assert inner.linear.out_features == len(inner.multiplier) == left
        assert linear_at(proxy, pair.outer).in_features == left
    assert not any("gate" in name for name, _ in proxy.module.named_parameters())
    assert "multiplier" in " ".join(name for name, _ in proxy.module.named_buffers())


def test_slices_cover_every_parameter_and_say_where_it_came_from(base) -> None:
    model, sample = base
    proxy, slices = proxy_of(model, sample, 0.6)
    mine, bases = dict(proxy.module.named_parameters()), dict(model.module.named_parameters())
    assert list(slices) == list(mine)
    assert set(bases) - set(mine) == {n for n in bases if ".gate." in n}
    for name, part in slices.items():
        assert torch.equal(part.gather(bases[name]), mine[name]), name
        whole = part.rows is None and part.columns is None
        assert whole == (mine[name].shape == bases[name].shape), name
    assert not all(s.rows is None for s in slices.values())
    assert not all(s.columns is None for s in slices.values())


@torch.no_grad()
def test_it_is_independent_of_the_knowledge_base(base) -> None:
    model, sample = base
    proxy, _ = proxy_of(model, sample, 0.5)
    before = model(sample)
    for p in proxy.module.parameters():
        p.add_(1.0)
    assert torch.equal(model(sample), before)


def test_all_its_parameters_learn(base) -> None:
    model, sample = base
    proxy, _ = proxy_of(model, sample, 0.5)
    proxy(sample).square().sum().backward()
    for pair in pairs(proxy):
        for name in (pair.inner, pair.outer):
            weight = linear_at(proxy, name).weight
            assert weight.grad is not None, name
            assert weight.grad.any(), name


def test_of_equal_importances_the_first_neurons_are_kept_as_in_the_mask(base) -> None:
    model, _ = base
    equal = {p.inner: torch.ones(linear_at(model, p.inner).out_features) for p in pairs(model)}
    _, slices = make_proxy(model, equal, most_important(equal, 0.5))
    for pair in pairs(model):
        m = len(equal[pair.inner])
        rows = slices[f"{pair.inner}.linear.weight"].rows
        assert rows is not None
        assert rows.tolist() == list(range(m - m // 2))


@pytest.mark.parametrize("sparsity", SHARES)
def test_the_most_important_by_sorting(sparsity: float) -> None:
    g = torch.tensor([3.0, 1.0, 2.0, 2.0, 0.0, 5.0, 2.0])
    order = sorted(range(7), key=lambda i: (-g[i].item(), i))
    expected = sorted(order[: 7 - math.floor(7 * sparsity)])
    assert most_important({"layer": g}, sparsity)["layer"].tolist() == expected


@torch.no_grad()
def test_other_neurons_than_the_most_important_can_be_kept(base) -> None:
    """The proxy equals the knowledge base with the gates of all others at zero."""
    model, sample = base
    found = of_one(importance(model, sample))
    kept = most_important({name: -g for name, g in found.items()}, 0.5)
    proxy, slices = make_proxy(model, found, kept)
    whole, _ = make_proxy(model, found, {n: torch.arange(len(g)) for n, g in found.items()})
    for name, rows in kept.items():
        assert slices[f"{name}.linear.weight"].rows is rows
        factors = whole.module.get_submodule(name).multiplier
        for i in range(len(factors)):
            if i not in rows.tolist():
                factors[i] = 0.0
    torch.testing.assert_close(proxy(sample), whole(sample), rtol=0, atol=1e-4)


def test_importances_and_kept_neurons_that_do_not_fit_are_refused(base) -> None:
    model, sample = base
    good = of_one(importance(model, sample))
    kept = most_important(good, 0.5)
    name = next(iter(good))
    with pytest.raises(BenchError, match=f"importances of {name} have none; give one value"):
        make_proxy(model, {k: v for k, v in good.items() if k != name}, kept)
    with pytest.raises(BenchError, match=f"importances of {name} have shape "):
        make_proxy(model, {**good, name: good[name].unsqueeze(0)}, kept)
    with pytest.raises(BenchError, match="importances of head, which has no gate"):
        make_proxy(model, {**good, "head": good[name]}, kept)
    with pytest.raises(BenchError, match="kept neurons of head, which has no gate"):
        make_proxy(model, good, {**kept, "head": kept[name]})
    with pytest.raises(BenchError, match=r"sparsity 1\.0"):
        most_important(good, 1.0)
