"""A network small enough to check updates by hand, and a door to adapt it once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.contracts.data import DomainView
from bench.contracts.method import Method
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker
from bench.costs.tracker import CostTracker
from bench.run.window import Window
from bench.testing import TinyModel, TinyModelConfig

CLASSES, WIDTH, INPUTS = 3, 8, 6


@pytest.fixture
def model() -> TinyModel:
    """In double precision, so that a formula can be compared to 1e-6."""
    torch.manual_seed(0)
    made = TinyModel.build(TinyModelConfig(width=WIDTH), (INPUTS,), CLASSES)
    made.module.double()
    return made


def _view(x: Tensor, y: Tensor | None = None, batch_size: int = 100, seed: int = 0) -> DomainView:
    return DomainView("domain", x, y, batch_size, torch.Generator().manual_seed(seed))


def _adapt(method: Method, *views: DomainView, budget_s: float = 1e9) -> CostTracker:
    tracker = make_tracker([load_device("xavier-nx")], method.stored)
    for each in views:
        with Window(tracker, budget_s) as window:
            method.adapt(each, window)
    return tracker


@pytest.fixture
def data() -> Callable[[int, int], tuple[Tensor, Tensor]]:
    def make(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(n, INPUTS, generator=generator, dtype=torch.float64)
        return x, torch.randint(0, CLASSES, (n,), generator=generator)

    return make


def _adam_by_hand(
    weights: Tensor, gradients: list[Tensor], lr: float, weight_decay: float = 0.0
) -> Tensor:
    """Kingma & Ba, ICLR 2015, algorithm 1 (with Loshchilov & Hutter's decoupled decay)."""
    m = torch.zeros_like(weights)
    v = torch.zeros_like(weights)
    w = weights.clone()
    for t, g in enumerate(gradients, start=1):
        w = w - lr * weight_decay * w
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w = w - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return w


@pytest.fixture
def view() -> Callable[..., DomainView]:
    return _view


@pytest.fixture
def adapt() -> Callable[..., CostTracker]:
    return _adapt


@pytest.fixture
def adam_by_hand() -> Callable[..., Tensor]:
    return _adam_by_hand
