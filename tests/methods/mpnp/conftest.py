"""A small model of two modalities and random samples for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.models.digits_modal_lm import DigitsModalConfig, DigitsModalLM

CLASSES, WORDS = 5, 3


@pytest.fixture
def modal() -> DigitsModalLM:
    """In double precision, with random weights."""
    torch.manual_seed(0)
    sizes = DigitsModalConfig(
        width=16, depth=3, heads=2, encoder_width=8, encoder_depth=2, tokens=2, vocabulary=20
    )
    made = DigitsModalLM.build(sizes, (1, 16, 16), CLASSES)
    made.module.double().eval()
    return made


@pytest.fixture
def samples() -> Callable[..., tuple[dict[str, Any], Tensor]]:
    def make(n: int, seed: int = 1) -> tuple[dict[str, Any], Tensor]:
        draw = torch.Generator().manual_seed(seed)
        x = {
            "image": torch.rand(n, 1, 16, 16, generator=draw, dtype=torch.float64),
            "range": torch.rand(n, 1, 16, 16, generator=draw, dtype=torch.float64),
            "input_ids": torch.randint(20, (n, WORDS), generator=draw),
        }
        return x, torch.randint(CLASSES, (n,), generator=draw)

    return make
