"""Feedback: from the proxy by loops over its neurons, between applications, and back again."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.index import Group, NeuronIndex, Part
from bench.methods.edgeta.method import EdgeTA, ReleasedConfig
from bench.methods.edgeta.offline import weights_of
from bench.methods.edgeta.proxies import proxy_to_kb
from bench.methods.edgeta.retraining import retrained
from bench.methods.multi_app.feedback import average_task_agnostic
from bench.models.surgery.neurons import Slice


def copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in weights.items()}


def prepared(config: Any, model: Any, source: Any) -> EdgeTA:
    method = EdgeTA(config)
    torch.manual_seed(1)
    with torch.enable_grad():
        method.prepare(model, source)
    return method


def test_the_mean_of_proxy_and_knowledge_base_by_loops() -> None:
    torch.manual_seed(0)
    shapes = {"rows": (4, 3), "columns": (2, 5), "bias": (4,), "whole": (2, 2), "head": (3, 2),
              "not listed": (4,)}  # fmt: skip
    kb = {name: torch.randn(shape) for name, shape in shapes.items()}
    rows, columns = torch.tensor([0, 3]), torch.tensor([1, 2, 4])
    slices = {
        "rows": Slice(rows, None), "columns": Slice(None, columns), "bias": Slice(rows, None),
        "whole": Slice(None, None), "head": Slice(None, None), "not listed": Slice(rows, None),
    }  # fmt: skip
    cut = {"rows": (2, 3), "columns": (2, 3), "bias": (2,), "not listed": (2,)}
    proxy = {name: torch.randn(shape) for name, shape in {**shapes, **cut}.items()}
    expected, before = copied(kb), copied(proxy)
    for i, row in enumerate([0, 3]):
        expected["bias"][row] = (kb["bias"][row] + proxy["bias"][i]) / 2
        for c in range(3):
            expected["rows"][row, c] = (kb["rows"][row, c] + proxy["rows"][i, c]) / 2
    for r in range(2):
        for i, column in enumerate([1, 2, 4]):
            expected["columns"][r, column] = (kb["columns"][r, column] + proxy["columns"][r, i]) / 2
        for c in range(2):
            expected["whole"][r, c] = (kb["whole"][r, c] + proxy["whole"][r, c]) / 2
    expected["head"] = proxy["head"].clone()
    where = {name: tensor.data_ptr() for name, tensor in kb.items()}
    proxy_to_kb(proxy, kb, slices, ["rows", "columns", "bias", "whole"], ["head"])
    for name, tensor in expected.items():
        assert torch.equal(kb[name], tensor), name
        assert kb[name].data_ptr() == where[name]
    assert all(torch.equal(proxy[n], before[n]) for n in proxy)


def test_a_real_proxy_changes_its_neurons_alone(build, source, settings, kind) -> None:
    method = prepared(EdgeTAConfig(**settings), build(kind), source(kind))
    names = retrained(method.model)
    kb, proxy = copied(weights_of(method.kb)), weights_of(method.model)
    for tensor in proxy.values():
        tensor.add_(1.0)
    found = copied(kb)
    proxy_to_kb(proxy, found, method.slices, names)
    for name, tensor in kb.items():
        kept = torch.zeros_like(tensor)
        if name in names:
            part = method.slices[name]
            rows = range(len(tensor)) if part.rows is None else part.rows.tolist()
            for row in rows:
                if tensor.dim() == 1:
                    kept[row] = 0.5
                    continue
                columns = range(tensor.shape[1]) if part.columns is None else part.columns.tolist()
                for column in columns:
                    kept[row, column] = 0.5
        torch.testing.assert_close(found[name], tensor + kept, rtol=0, atol=1e-6)
        assert torch.equal(found[name][kept == 0], tensor[kept == 0])


def applications() -> list[dict[str, Tensor]]:
    torch.manual_seed(0)
    made = []
    for i in range(3):
        body = {"body": torch.randn(3, 2) * 10.0**i, "norm": torch.randn(3)}
        made.append({**body, "head": torch.randn(2 + i, 2), "bias": torch.randn(2 + i)})
    made[1]["own"] = torch.randn(2)
    return made


def test_the_mean_over_applications_by_loops_leaves_what_is_not_shared() -> None:
    before, models = applications(), applications()
    average_task_agnostic(models, lambda name: name != "norm")
    for i, model in enumerate(models):
        for r in range(3):
            for c in range(2):
                mean = sum(b["body"][r, c].item() for b in before) / 3
                assert model["body"][r, c].item() == pytest.approx(mean, rel=1e-6)
        for name in set(model) - {"body"}:  # not shared, of other shapes, or in one model alone
            assert torch.equal(model[name], before[i][name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_order_of_applications_does_not_matter(dtype: torch.dtype) -> None:
    results = []
    for order in itertools.permutations(range(3)):
        models = [{n: t.to(dtype) for n, t in m.items()} for m in applications()]
        average_task_agnostic([models[i] for i in order], lambda _: True)
        results.append(models)
    for models in results:
        for model, first in zip(models, results[0], strict=True):
            assert all(torch.equal(model[n], first[n]) for n in first)
            assert torch.equal(model["body"], models[0]["body"])


def test_one_application_is_its_own_mean() -> None:
    (model, *_), (before, *_) = applications(), applications()
    average_task_agnostic([model], lambda _: True)
    assert all(torch.equal(model[n], before[n]) for n in before)


def test_the_way_to_the_model_and_back_by_loops() -> None:
    torch.manual_seed(0)
    before, kb, fm = (
        {"w": torch.randn(2, 3)}, {"w": torch.randn(2, 3)}, {"w": torch.randn(4, 3)}
    )  # fmt: skip
    index = NeuronIndex([Group("w", (Part("w"),), (Part("w"),))], kb, fm, None)
    entries = torch.randn(2, 4)
    with torch.no_grad():
        index.values[0].copy_(entries)
    large, small = fm["w"].clone(), kb["w"].clone()
    for j in range(4):
        for i in range(2):
            large[j] += 0.4 * entries[i, j] * (kb["w"][i] - before["w"][i])
    for i in range(2):
        combined = sum(entries[i, j] * large[j] for j in range(4))
        small[i] = 0.3 * combined + 0.7 * small[i]
    index.to_fm(before, kb, fm, 0.4)
    index.to_kb(kb, fm, 0.3)
    torch.testing.assert_close(fm["w"], large)
    torch.testing.assert_close(kb["w"], small)


@torch.no_grad()
@pytest.mark.parametrize("model_feedback", ["change", "replace"])
def test_a_proxy_that_learned_nothing_harms_no_knowledge_base_but_by_replacing_it(
    build, source, settings, kind, model_feedback
) -> None:
    data = source(kind)
    config = EdgeTAConfig(
        **settings, sparsity=0.5, kb_to_fm=1.0, fm_to_kb=1.0, model_feedback=model_feedback
    )
    method = prepared(config, build(kind), data)
    before, outputs = copied(weights_of(method.kb)), method.kb(data.x)
    memory = set(vars(method))
    assert method.give_to_model()
    method.take_from_model()
    assert set(vars(method)) == memory
    moved = max(float((t - before[n]).abs().max()) for n, t in weights_of(method.kb).items())
    away = float((method.kb(data.x) - outputs).abs().max())
    if model_feedback == "change":
        assert moved < 1e-6
        assert away < 1e-5
    else:
        assert moved > 1e-2
        assert away > 1e-2


@torch.no_grad()
def test_the_models_change_goes_back_by_matrices(build, source, settings) -> None:
    """W_fm += a1 I^T dW_kb and W_kb += a2 I dW_fm, here with I written out in full."""
    config = EdgeTAConfig(**settings, kb_to_fm=0.7, fm_to_kb=0.4)
    method = prepared(config, build("vit"), source("vit"))
    generator = torch.Generator().manual_seed(2)
    for name, p in method.model.module.named_parameters():
        if name in retrained(method.model):
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    old_kb, old_fm = copied(weights_of(method.kb)), copied(weights_of(method.fm))
    middle = copied(old_kb)
    proxy_to_kb(weights_of(method.model), middle, method.slices, retrained(method.model))
    method.give_to_model()
    method.take_from_model()
    for i, group in enumerate(method.index.groups):
        support = getattr(method.index, f"support_{i}")
        full = torch.zeros(len(support), len(group.fm_matrix(old_fm)))
        full.scatter_(1, support, method.index.values[i])
        change = 0.7 * full.t() @ (group.kb_matrix(middle) - group.kb_matrix(old_kb))
        wanted_fm = group.fm_matrix(old_fm) + change
        wanted_kb = group.kb_matrix(middle) + 0.4 * full @ change
        fm, kb = weights_of(method.fm), weights_of(method.kb)
        torch.testing.assert_close(group.fm_matrix(fm), wanted_fm, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(group.kb_matrix(kb), wanted_kb, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_all_of_the_feedback_reaches_the_models_outputs_unless_as_released(
    build, source, settings, kind
) -> None:
    """The release puts LoRA's part of the change beside the model, where inference ignores it."""
    data = source(kind)
    for config_class in (EdgeTAConfig, ReleasedConfig):
        method = prepared(config_class(**settings), build(kind), data)
        for values in method.index.values:  # a dense index is nearly empty after a few steps
            values.normal_()
        kb = weights_of(method.kb)
        before = copied(kb)
        for block in method.kb.blocks():
            for name in block.qkv:
                kb[f"{name}.weight"].add_(torch.randn_like(kb[f"{name}.weight"]))
        outputs = method.fm(data.x)
        own, products = copied(weights_of(method.fm)), copied(method.products)
        fm = {**weights_of(method.fm), **method.products}
        method.index.to_fm(before, kb, fm, 0.1)
        after = method.fm(data.x)
        assert float((after - outputs).abs().max()) > 1e-3
        if config_class is EdgeTAConfig:
            assert not products
            continue
        assert products
        for name, product in products.items():
            assert not torch.equal(method.products[name], product), name
        for name, tensor in weights_of(method.fm).items():
            if ".base." in name:
                tensor.copy_(own[name])
        assert torch.equal(method.fm(data.x), outputs)  # all that changed it was the base's part
