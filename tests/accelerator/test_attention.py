"""Fused attention repeats exactly on a GPU: torch is asked to be strict around its node alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from bench.accelerator.determinism import make_attention_repeat


@pytest.fixture
def fused() -> Iterator[None]:
    """Torch's own afterwards, and its settings."""
    own, strict = (
        functional.scaled_dot_product_attention,
        torch.are_deterministic_algorithms_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    make_attention_repeat()
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = own
        torch.use_deterministic_algorithms(strict)


def lenient() -> bool:
    return torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.usefixtures("fused")
def test_torch_is_strict_in_the_backward_pass_of_attention_alone() -> None:
    q = torch.rand(1, 2, 4, 8, requires_grad=True)
    made = functional.scaled_dot_product_attention(q, q, q)
    seen = []
    assert made.grad_fn is not None
    made.grad_fn.register_prehook(lambda *_: seen.append(lenient()))
    q.register_hook(lambda *_: seen.append(lenient()))
    made.sum().backward()
    assert seen == [False, True]
    assert lenient()


@pytest.mark.usefixtures("fused")
def test_its_results_are_those_of_torch_and_it_is_done_once() -> None:
    once = functional.scaled_dot_product_attention
    make_attention_repeat()
    assert functional.scaled_dot_product_attention is once
    q = torch.rand(1, 2, 4, 8)
    expected = torch.nn.functional.softmax(q @ q.mT / 8**0.5, dim=-1) @ q
    assert torch.allclose(once(q, q, q), expected, atol=1e-6)
