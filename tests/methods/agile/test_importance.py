"""Integrated gradients and the losses on them, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.methods.agile.importance import (
    disorder_loss,
    integrated_gradients,
    normalised,
    often_important,
    skewness,
    skewness_loss,
)


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(6 * 9, 3)
    ).double()


def features() -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(5, 4, 3, 3, dtype=torch.double) * 3, torch.tensor([0, 1, 2, 0, 1])


def losses(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(network(x), y, reduction="none")


def test_attributions_sum_to_the_difference_of_the_losses(network: nn.Module) -> None:
    x, y = features()
    found = integrated_gradients(network, x, y, points=400)
    difference = losses(network, x, y) - losses(network, torch.zeros_like(x), y)
    assert torch.allclose(found.sum(dim=(1, 2, 3)), difference, atol=1e-4)
    assert difference.abs().max() > 0.1


def test_two_points_are_the_mean_of_the_gradients_at_both_ends(network: nn.Module) -> None:
    x, y = features()
    found = integrated_gradients(network, x, y, points=2).detach()
    # By central differences, one feature of one sample.
    for place in [(0, 1, 2, 0), (3, 0, 1, 1), (4, 3, 2, 2)]:
        step = torch.zeros_like(x)
        step[place] = 1e-5
        slopes = [
            (losses(network, at + step, y) - losses(network, at - step, y))[place[0]] / 2e-5
            for at in (torch.zeros_like(x), x)
        ]
        assert float(found[place]) == pytest.approx(
            float((x[place] * sum(slopes) / 2).detach()), abs=1e-8
        )


def test_the_losses_reach_what_made_the_features(network: nn.Module) -> None:
    """The second derivative, against differences of the skewness loss itself."""
    x, y = features()

    def loss(scale: Tensor) -> Tensor:
        importance = normalised(
            integrated_gradients(network, x * scale, y, points=2, create_graph=True)
        )
        return skewness_loss(importance, 2, 1.0) + disorder_loss(importance, 2, "channel")

    scale = torch.ones(4, 1, 1, dtype=torch.double, requires_grad=True)
    loss(scale).backward()
    assert scale.grad is not None
    for channel in range(4):
        step = torch.zeros_like(scale)
        step[channel] = 1e-5
        with torch.enable_grad():
            slope = (loss(scale.detach() + step) - loss(scale.detach() - step)) / 2e-5
        assert float(scale.grad[channel]) == pytest.approx(float(slope.detach()), abs=1e-6)


def test_losses_by_hand() -> None:
    # Two samples of four channels with one position; the first two channels are local.
    importance = torch.tensor([[0.5, 0.2, 0.25, 0.05], [0.1, 0.6, 0.1, 0.2]]).reshape(2, 4, 1, 1)
    assert skewness(importance, 2).tolist() == pytest.approx([0.7, 0.7])
    assert float(skewness_loss(importance, 2, 0.8)) == pytest.approx(0.1)
    assert float(skewness_loss(importance, 2, 0.7)) == pytest.approx(0.0, abs=1e-6)
    # max of the rest - min of the local: 0.25 - 0.2 and 0.2 - 0.1.
    assert float(disorder_loss(importance, 2, "channel")) == pytest.approx((0.05 + 0.1) / 2)


@pytest.mark.parametrize("over", ["channel", "element"])
def test_losses_against_numpy(over: str) -> None:
    torch.manual_seed(2)
    importance = normalised(torch.randn(7, 6, 3, 2))
    array = importance.numpy()
    assert np.allclose(array.sum(axis=(1, 2, 3)), 1, atol=1e-6)
    expected_skew = np.maximum(0, 0.9 - array[:, :2].sum(axis=(1, 2, 3))).mean()
    values = array.sum(axis=(2, 3)) if over == "channel" else array.reshape(7, 6, 6)
    first, rest = values[:, :2].reshape(7, -1), values[:, 2:].reshape(7, -1)
    expected = np.maximum(0, rest.max(axis=1) - first.min(axis=1)).mean()
    assert float(skewness_loss(importance, 2, 0.9)) == pytest.approx(expected_skew, abs=1e-6)
    assert float(disorder_loss(importance, 2, over)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]
    assert expected > 0


def test_nothing_important_is_all_alike() -> None:
    assert torch.equal(normalised(torch.zeros(2, 2, 2, 2)), torch.full((2, 2, 2, 2), 0.125))


def test_channels_are_chosen_by_how_often_they_matter() -> None:
    # Channel 3 is often second, channel 0 once by far the most important.
    batches = [
        torch.tensor([[9.0, 0.1, 0.2, 0.3]]),
        torch.tensor([[0.0, 0.5, 0.1, 0.4], [0.0, 0.6, 0.1, 0.3], [0.1, 0.0, 0.5, 0.4]]),
    ]
    order = often_important([batch.reshape(-1, 4, 1, 1) for batch in batches], 2)
    assert order.tolist() == [3, 1, 0, 2]  # 4, 2, 1 and 1 times; 0 before 2 by the mean
