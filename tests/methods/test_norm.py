"""Batch statistics of BatchNorm layers: in predictions, with a prior, and for a batch of one."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from bench.errors import Unsupported
from bench.methods.norm import Norm, NormConfig
from bench.methods.tent import Tent, TentConfig


@pytest.fixture
def images(model, data):
    """The tiny network with BatchNorm whose source statistics are not those of the data."""
    model.module.norm = nn.BatchNorm1d(8).double()
    model.module.norm.running_mean.fill_(0.3)
    model.module.norm.running_var.fill_(2.0)
    return data(6)[0]


def prepared(model, view, x, **settings):
    method = Norm(NormConfig(**settings))
    method.prepare(model, view(x))
    return method


@pytest.mark.parametrize("prior", [0, 10])
def test_a_batch_is_normalized_by_its_own_and_the_sources_statistics(model, view, images, prior):
    twin = copy.deepcopy(model.module)
    hidden = twin.body(images)
    share = 6 / (6 + prior)
    twin.norm.running_mean = share * hidden.mean(dim=0).detach() + (1 - share) * 0.3
    twin.norm.running_var = share * hidden.var(dim=0, correction=0).detach() + (1 - share) * 2.0
    expected = twin.eval()(images)
    found = prepared(model, view, images, prior=prior).predict(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_is_normalized_by_the_sources_statistics(model, view, images):
    expected = copy.deepcopy(model.module).eval()(images[:1])
    method = prepared(model, view, images)
    torch.testing.assert_close(method.predict(images[:1]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("prior", [0, 10])
def test_predicting_in_training_mode_too_leaves_the_sources_statistics(model, view, images, prior):
    method = prepared(model, view, images, prior=prior)
    before = copy.deepcopy(model.module.state_dict())
    model.train()
    model(images)
    assert model.module.norm.training
    method.predict(images)
    after = model.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_error_in_the_layer_puts_the_statistics_back(model, view, images):
    method = prepared(model, view, images)
    with pytest.raises(RuntimeError):
        model.module.norm(images)  # 6 features where there are 8
    assert model.module.norm.running_mean is not None
    assert torch.isfinite(method.predict(images)).all()


def test_a_copy_has_statistics_of_its_own(model, view, images):
    method = prepared(model, view, images)
    twin = method.model.clone()
    twin.train(False)
    assert torch.equal(twin(images), method.predict(images))


def test_tent_predicts_by_the_batch_or_by_running_averages(model, view, data, adapt, images):
    found = {}
    for statistics in ("batch", "running"):
        method = Tent(TentConfig(statistics=statistics))
        method.prepare(model.clone(), view(images))
        adapt(method, view(images))
        found[statistics] = method
    alone = {name: m.predict(images[:2]) for name, m in found.items()}
    among = {name: m.predict(images)[:2] for name, m in found.items()}
    torch.testing.assert_close(alone["running"], among["running"])
    assert not torch.allclose(alone["batch"], among["batch"])
    assert torch.equal(
        found["batch"].model.module.norm.running_mean, torch.full_like(images[0, :1].expand(8), 0.3)
    )


def test_without_batchnorm_it_is_refused_and_the_setting_has_no_effect(model, view, data, adapt):
    x = data(6)[0]
    with pytest.raises(Unsupported, match="TinyModel has none; source-only"):
        Norm(NormConfig()).prepare(model, view(x))
    outputs = []
    for statistics in ("batch", "running"):
        method = Tent(TentConfig(statistics=statistics))
        method.prepare(model.clone(), view(x))
        adapt(method, view(x))
        outputs.append(method.predict(x))
    assert torch.equal(*outputs)
