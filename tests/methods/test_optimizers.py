"""The optimizers and schedules of the papers against their formulas in plain numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bench.methods._optimizers import make_optimizer, set_rate, share_of_rate


def steps(optimizer, parameter, count, schedule="constant"):
    """Minimise 2 p^2, whose gradient is 4 p."""
    for i in range(count):
        set_rate(optimizer, schedule, i / count)
        optimizer.zero_grad()
        (2 * parameter.pow(2)).sum().backward()
        optimizer.step()
    return float(parameter.detach())


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("schedule", ["constant", "decay"])
def test_sgd_has_momentum_decay_and_a_schedule(nesterov, schedule):
    parameter = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimizer = make_optimizer(
        "sgd", [parameter], 0.01, momentum=0.9, nesterov=nesterov, weight_decay=0.1
    )
    found = steps(optimizer, parameter, 5, schedule)
    p, velocity = 1.0, 0.0
    for i in range(5):
        rate = 0.01 if schedule == "constant" else 0.01 / (1 + 10 * i / 5) ** 0.75
        gradient = 4 * p + 0.1 * p
        velocity = gradient if i == 0 else 0.9 * velocity + gradient
        p -= rate * (gradient + 0.9 * velocity if nesterov else velocity)
    assert found == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(("name", "decay"), [("adam", 0.0), ("adamw", 0.01)])
def test_adam_decays_no_weight_and_adamw_by_a_hundredth(name, decay):
    parameter = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    found = steps(make_optimizer(name, [parameter], 0.01, weight_decay=5.0), parameter, 1)
    assert found == pytest.approx(1.0 - 0.01 * decay - 0.01, rel=1e-8)  # the first step is the rate


def test_groups_keep_their_own_rates_through_a_schedule():
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    groups = [{"params": [a]}, {"params": [b], "lr": 0.5}]
    optimizer = make_optimizer("sgd", groups, 0.1)
    for progress in (0.5, 1.0):
        set_rate(optimizer, "decay", progress)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(
        [0.1 * 11**-0.75, 0.5 * 11**-0.75]
    )
    set_rate(optimizer, "constant", 0.7)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]
    assert share_of_rate("decay", 0.0) == 1.0
