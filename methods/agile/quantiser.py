"""Soft-to-hard quantisation of features to a few values (Agustsson et al., NeurIPS 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIGHEST = 6.0
"""Of a feature behind ReLU6."""


class Quantiser(nn.Module):
    """Features from 0 to 6 as one of ``levels`` centroids c_j = 6 sigmoid(p_j), p_j learned.

    Forward the nearest centroid; backward the gradient of the mixture sum_j a_j c_j with
    a = softmax_j(-(x - c_j)^2). The centroids are evenly spaced at first.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.logit((torch.arange(levels) + 0.5) / levels))

    @property
    def centroids(self) -> Tensor:
        """The values, shape (levels,)."""
        return HIGHEST * self.positions.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with each element replaced as the class says."""
        c = self.centroids
        away = (x.unsqueeze(-1) - c).square()
        soft = ((-away).softmax(dim=-1) * c).sum(dim=-1)
        hard = c[away.argmin(dim=-1)]
        return soft + (hard - soft).detach()

    @property
    def values(self) -> Tensor:
        """The values of the symbols, ascending, shape (levels,)."""
        return self.centroids.sort().values

    def symbols(self, x: Tensor) -> Tensor:
        """Of the nearest centroids, uint8 in the shape of ``x``: how many midpoints are below."""
        values = self.values
        found = torch.zeros_like(x, dtype=torch.uint8)
        for middle in (values[1:] + values[:-1]) / 2:
            found += x > middle
        return found


class LinearQuantiser(nn.Module):
    """Features from 0 to 6 as one of ``levels`` evenly spaced values; nothing is learned."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.values: Tensor
        self.register_buffer("values", torch.linspace(0, HIGHEST, levels))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` rounded, with the gradient of ``x``."""
        step = HIGHEST / (len(self.values) - 1)
        rounded = (x.clamp(0, HIGHEST) / step).round() * step
        return x + (rounded - x).detach()

    def symbols(self, x: Tensor) -> Tensor:
        """Positions of the values, uint8 in the shape of ``x``."""
        step = HIGHEST / (len(self.values) - 1)
        return (x.clamp(0, HIGHEST) / step).round().to(torch.uint8)
