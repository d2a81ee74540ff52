"""The quantisers, against plain computations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.methods.agile.quantiser import LinearQuantiser, Quantiser


def quantiser() -> Quantiser:
    torch.manual_seed(0)
    made = Quantiser(8).double()
    with torch.no_grad():
        made.positions.add_(torch.randn(8, dtype=torch.double))
    return made


def test_fresh_centroids_are_evenly_spaced() -> None:
    assert torch.allclose(Quantiser(8).centroids, (torch.arange(8) + 0.5) * 6 / 8)


def test_forward_is_the_nearest_centroid_and_backward_the_soft_mixture() -> None:
    made, x = quantiser(), (torch.rand(3, 5, dtype=torch.double) * 6).requires_grad_()
    out = made(x)
    out.sum().backward()
    centroids = made.centroids.detach().numpy()
    values = x.detach().numpy()
    nearest = centroids[np.abs(values[..., None] - centroids).argmin(axis=-1)]
    assert np.allclose(out.detach().numpy(), nearest)

    def soft(v: np.ndarray, c: np.ndarray) -> np.ndarray:
        weight = np.exp(-((v[..., None] - c) ** 2))
        return (weight * c).sum(axis=-1) / weight.sum(axis=-1)

    slope = (soft(values + 1e-6, centroids) - soft(values - 1e-6, centroids)) / 2e-6
    assert x.grad is not None
    assert np.allclose(x.grad.numpy(), slope, atol=1e-6)

    positions = made.positions.detach().numpy()
    assert made.positions.grad is not None
    for j in range(8):
        step = np.eye(8)[j] * 1e-6
        up, down = (6 / (1 + np.exp(-(positions + s))) for s in (step, -step))
        expected = (soft(values, up) - soft(values, down)).sum() / 2e-6
        assert float(made.positions.grad[j]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("made", [quantiser(), LinearQuantiser(256).double()])
def test_symbols_name_the_values_that_forward_gives(made: Quantiser | LinearQuantiser) -> None:
    x = torch.rand(200, dtype=torch.double) * 6
    with torch.no_grad():
        assert torch.allclose(made.values[made.symbols(x).long()], made(x))


def test_three_bits_hold_all_symbols() -> None:
    made = quantiser()
    assert int(made.symbols(torch.linspace(0, 6, 500, dtype=torch.double)).max()) == 7


def test_the_linear_one_rounds_and_passes_the_gradient_on() -> None:
    made, x = LinearQuantiser(4), torch.tensor([0.9, 1.1, 5.9], requires_grad=True)
    out = made(x)
    out.sum().backward()
    assert out.tolist() == pytest.approx([0, 2, 6])
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]
