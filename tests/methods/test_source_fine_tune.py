"""The control: feature alignment with weight 0, without looking at the target."""

from __future__ import annotations

import torch

from bench.methods.feature_alignment import FeatureAlignment, FeatureAlignmentConfig
from bench.methods.source_fine_tune import SourceFineTune


def run(method, model, data, view, adapt, target=None):
    method.prepare(model, view(*data(10), batch_size=4))
    x = data(9, seed=2)[0] if target is None else target
    return adapt(method, view(x, batch_size=4), view(x, batch_size=4, seed=1))


def test_it_is_feature_alignment_with_weight_0_parameter_by_parameter(model, data, view, adapt):
    twin, before = model.clone(), model.clone()
    control = SourceFineTune(SourceFineTune.Config(learning_rate=0.01))
    aligned = FeatureAlignment(FeatureAlignmentConfig(learning_rate=0.01, mmd_weight=0.0))
    steps = run(control, model, data, view, adapt)
    assert steps.counts == run(aligned, twin, data, view, adapt).counts == {"adapt": 18}
    for name, parameter in twin.module.named_parameters():
        torch.testing.assert_close(model.module.get_parameter(name), parameter, rtol=0, atol=0)
    assert not torch.equal(model.module.body.weight, before.module.body.weight)
    assert torch.equal(model.module.head.weight, before.module.head.weight)


def test_it_never_looks_at_the_target_and_a_step_costs_less(model, data, view, adapt):
    twin, unseen = model.clone(), torch.full((9, 6), torch.nan, dtype=torch.float64)
    control = run(SourceFineTune(SourceFineTune.Config()), model, data, view, adapt, unseen)
    aligned = run(FeatureAlignment(FeatureAlignmentConfig()), twin, data, view, adapt)
    assert all(torch.isfinite(p).all() for p in model.module.parameters())
    assert control.devices[0].window.time_s < aligned.devices[0].window.time_s
