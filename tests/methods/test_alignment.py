"""The shared recipe, and the traps that each method built on it or beside it must survive."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from bench.contracts.data import DomainView
from bench.contracts.method import SearchedChoice, search_space
from bench.contracts.model import Block
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.methods._alignment import Alignment, AlignmentConfig
from bench.methods.bias_only import BiasOnly
from bench.methods.cua import Cua
from bench.methods.dann import Dann
from bench.methods.deep_coral import DeepCoral
from bench.methods.feature_alignment import FeatureAlignment
from bench.methods.fine_tune import FineTune
from bench.methods.linear_probe import LinearProbe
from bench.methods.lora import Lora
from bench.methods.source_fine_tune import SourceFineTune
from bench.methods.source_stats import SourceStats
from bench.run.window import Window
from bench.testing import TinyModel

ALIGNMENT = [FeatureAlignment, DeepCoral, Dann, Cua, SourceFineTune]
METHODS = [*ALIGNMENT, SourceStats, LinearProbe, BiasOnly, FineTune, Lora]


class Net(nn.Module):
    """A fused "qkv", so that LoRA finds its place, and dropout, so that random draws matter."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 9)
        self.norm = nn.LayerNorm(9)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(9, 3)

    def forward(self, x):
        return self.head(self.dropout(torch.tanh(self.norm(self.qkv(x)))))


def build():
    torch.manual_seed(0)
    block = Block(qkv=("qkv",), out="qkv", ff_in="qkv", ff_out="qkv", heads=1)
    return TinyModel(Net(), blocks=[block])


def prepared(method_class, batch_size=4, dtype=torch.float32):
    model = build()
    model.module.to(dtype)
    rank = {"rank": 2} if method_class is Lora else {}
    method = method_class(method_class.Config(learning_rate=0.01, epochs=2, **rank))
    torch.manual_seed(1)
    method.prepare(model, domain(9, batch_size, seed=9, dtype=dtype, labelled=True))
    return method


def domain(n, batch_size, seed, dtype=torch.float32, labelled=False, single_pass=False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator).to(dtype)
    y = torch.randint(0, 3, (n,), generator=generator)
    return DomainView("d", x, y if labelled else None, batch_size, generator, single_pass)


def target(method, n, batch_size, seed=2, **more):
    return domain(n, batch_size, seed, labelled="target_labels" in method.needs, **more)


def weights(method):
    return {n: t.detach().clone() for n, t in method.model.module.state_dict().items()}


def require_learned(method, before):
    after = weights(method)
    assert all(torch.isfinite(t).all() for t in after.values())
    assert any(not torch.equal(before[n], after[n]) for n in before)


@pytest.mark.parametrize("method_class", METHODS)
def test_batches_of_one_sample_give_finite_weights(method_class, adapt):
    method = prepared(method_class, batch_size=1)
    before = weights(method)
    tracker = adapt(method, target(method, 3, 1))
    assert tracker.counts["adapt"] == 3 * 2
    require_learned(method, before)


@pytest.mark.parametrize("method_class", METHODS)
def test_a_short_last_batch_of_one_sample_is_used(method_class, adapt):
    method = prepared(method_class)
    before = weights(method)
    tracker = adapt(method, target(method, 5, 4), target(method, 5, 4, seed=3))
    assert tracker.counts["adapt"] == 2 * 2 * 2
    require_learned(method, before)


@pytest.mark.parametrize("method_class", METHODS)
def test_models_in_bfloat16_are_adapted_and_stay_so(method_class, adapt):
    method = prepared(method_class, dtype=torch.bfloat16)
    before = weights(method)
    adapt(method, target(method, 5, 4, dtype=torch.bfloat16))
    adapt(method, target(method, 5, 4, seed=3, dtype=torch.bfloat16))
    require_learned(method, before)
    assert {t.dtype for t in weights(method).values()} == {torch.bfloat16}


@pytest.mark.parametrize("method_class", METHODS)
def test_a_saved_state_continues_bit_for_bit(method_class, adapt):
    first, second = prepared(method_class), prepared(method_class)
    adapt(first, target(first, 7, 4))
    stream = io.BytesIO()
    torch.save(first.state(), stream)
    stream.seek(0)
    second.load_state(torch.load(stream, weights_only=True))
    for method in (first, second):
        torch.manual_seed(5)
        adapt(method, target(method, 7, 4, seed=3))
    again = weights(second)
    for name, value in weights(first).items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)
    for ours, theirs in zip(tree_leaves(second.state()), tree_leaves(first.state()), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


@pytest.mark.parametrize("method_class", [m for m in METHODS if "online" in m.protocols])
def test_one_batch_at_a_time_is_one_pass(method_class):
    """In an online stream each call brings one batch, whatever number of epochs is set."""
    method = prepared(method_class)
    before = weights(method)
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    with Window(tracker, 1e9) as window:
        for seed in range(3):
            method.adapt(target(method, 4, 4, seed=seed, single_pass=True), window)
    assert tracker.counts == {"adapt": 3}
    require_learned(method, before)


class InOrder(DomainView):
    def batches(self, epochs=1, shuffle=True):
        return super().batches(epochs, shuffle=False)


@pytest.mark.parametrize("method_class", [SourceStats, LinearProbe, BiasOnly, FineTune])
def test_online_and_periodic_agree_on_the_same_batches(method_class, adapt):
    results = []
    for size in (8, 4):  # a domain of two batches, or two calls of one batch
        method = prepared(method_class)
        data = target(method, 8, 4)
        views = [
            InOrder("d", x, y, 4, torch.Generator(), single_pass=True)
            for x, y in zip(
                data.x.split(size),
                data.y.split(size) if data.labelled else [None] * 2,
                strict=False,
            )
        ]
        torch.manual_seed(3)
        assert adapt(method, *views).counts == {"adapt": 2}
        results.append(weights(method))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=0)


@pytest.mark.parametrize("method_class", ALIGNMENT)
def test_all_alignment_methods_share_one_recipe(method_class):
    """With the same settings they have the same optimizer over the same weights."""
    shared = AlignmentConfig()
    method = method_class(method_class.Config(**shared.model_dump()))
    method.prepare(build(), domain(9, 4, seed=9, labelled=True))
    assert issubclass(method_class.Config, AlignmentConfig)
    assert method_class.adapt is Alignment.adapt or method_class is Cua
    assert "source_data" in method_class.needs
    assert type(method.optimizer) is torch.optim.AdamW
    body = {id(p) for p in method.model.body_parameters()}
    assert {id(p) for p in method.optimizer.param_groups[0]["params"]} == body
    assert {id(p) for p in method.model.module.parameters() if p.requires_grad} == body


def test_the_papers_recipes_are_the_defaults():
    """Deep CORAL: SGD 1e-3, weight decay 5e-4, ten times the rate for the head; DANN: SGD 1e-2."""
    for method_class, groups in (
        (DeepCoral, [(1e-3, 5e-4), (1e-2, 5e-4)]),
        (Dann, [(1e-2, 0.0), (1e-2, 0.0), (1e-2, 0.0)]),  # the discriminator besides
    ):
        method = method_class(method_class.Config())
        method.prepare(build(), domain(9, 4, seed=9, labelled=True))
        assert type(method.optimizer) is torch.optim.SGD
        found = [(g["lr"], g["weight_decay"]) for g in method.optimizer.param_groups]
        assert found == groups
        assert {g["momentum"] for g in method.optimizer.param_groups} == {0.9}
        assert all(p.requires_grad for p in method.model.module.parameters())
    assert (Dann.Config().schedule, DeepCoral.Config().schedule) == ("decay", "constant")


@pytest.mark.parametrize("method_class", METHODS)
def test_few_fields_are_searched_around_the_default(method_class):
    fields = list(search_space(method_class.Config))
    assert 2 <= len(fields) <= 6
    defaults = method_class.Config()
    for field in fields:
        assert field.holds(getattr(defaults, field.name))
        if isinstance(field, SearchedChoice):
            for value in field.values:
                method_class.Config(**{field.name: value})
            continue
        method_class.Config(**{field.name: int(field.low) if field.integer else field.low})
        method_class.Config(**{field.name: int(field.high) if field.integer else field.high})
    assert method_class.equation
    assert method_class.paper
