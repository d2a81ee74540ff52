"""Whole steps to calibrate: of optimizers, and of networks with negligible arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.calibration.operators import Sizes
from bench.calibration.timing import Call, Pool

TENSORS = 20
"""Maximum number of parameters in an optimizer's step; fewer if they are large."""
OPTIMIZERS: dict[str, Any] = {
    "AdamW": torch.optim.AdamW,
    "Adam": torch.optim.Adam,
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, 1e-3, momentum=0.9),
}


BLOCKS = 12
"""Of a network with negligible arithmetic: a transformer's, or convolutions with normalization."""


@dataclass(frozen=True)
class OptimizerStep:
    """A step of an optimizer over parameters of ``count`` elements each."""

    optimizer: str
    count: int

    @property
    def name(self) -> str:
        """What it is, for progress and errors."""
        return f"{self.optimizer} {self.count}"

    @property
    def bytes(self) -> int:
        """Bytes of parameters, gradients, two moments and temporaries of a step."""
        return 6 * 4 * self.count * self._tensors(2**26)

    def _tensors(self, cold_bytes: float) -> int:
        return max(min(math.ceil(cold_bytes / (16 * self.count)), TENSORS), 1)

    def calls(self, pool: Pool) -> list[Call]:
        """The step; parameters and moments together exceed the caches where possible."""
        parameters = []
        for _ in range(self._tensors(2 * pool.cache_bytes)):
            parameters.append(nn.Parameter(pool.own(self.count)))
            parameters[-1].grad = pool.take(self.count)
        made = OPTIMIZERS[self.optimizer](parameters)
        made.step()  # makes the moments
        return [made.step]


def optimizer_steps(sizes: Sizes) -> Iterator[OptimizerStep]:
    """Every optimizer at every size of a parameter."""
    return (OptimizerStep(each, count) for each in OPTIMIZERS for count in sizes.tensors)


class TransformerBlock(nn.Module):
    """A transformer's block with fused query, key and value, normalized beforehand."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.behind = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        wide = 4 * width
        self.feed_forward = nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens of shape (n, tokens, width)."""
        n, tokens, width = x.shape
        parts = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        share = self.dropout if self.training else 0.0
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=share)
        x = x + self._dropped(self.out(mixed.transpose(1, 2).reshape(n, tokens, width)))
        return x + self._dropped(self.feed_forward(self.behind(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x


@dataclass(frozen=True)
class AutogradCall:
    """A call of autograd for a view: the overhead included in every timed backward pass."""

    name: str = "a call of autograd"

    def calls(self, pool: Pool) -> list[Call]:
        """The call."""
        with torch.enable_grad():
            x = pool.take(8).detach().requires_grad_()
            out = x.view(2, 4)
        return [partial(torch.autograd.grad, out, x, pool.take(2, 4), retain_graph=True)]


@dataclass(frozen=True)
class Dispatch:
    """A forward pass, with ``train`` also the backward pass, of a network of minimal width."""

    kind: str
    train: bool

    @property
    def name(self) -> str:
        """What it is, for progress and errors."""
        return f"dispatch of {self.kind}, {'training' if self.train else 'inference'}"

    def calls(self, pool: Pool) -> list[Call]:
        """The pass, on one network."""
        layers: list[nn.Module] = []
        for _ in range(BLOCKS):
            if self.kind == "transformer":
                layers.append(TransformerBlock(8, 2))
            else:
                block = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
                layers.append(nn.Sequential(*block))
        x = pool.take(1, 4, 8) if self.kind == "transformer" else pool.take(1, 8, 2, 2)
        net = nn.Sequential(*layers).to(pool.accelerator)
        net.train(self.train)

        def run() -> None:
            if not self.train:
                net(x)
                return
            with torch.enable_grad():
                net.zero_grad()
                net(x).sum().backward()

        run()
        return [run]


DISPATCHES = tuple(
    Dispatch(kind, train) for kind in ("transformer", "convolutions") for train in (False, True)
)
