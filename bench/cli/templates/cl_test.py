"""my-idea: two updates against their formula, and the contract that every method keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bench import DomainView, Window, registry
from bench.conformance import check_method
from bench.costs.factory import make_tracker
from bench.testing import TinyModel, make_device

# In the project's own folders: from bench.methods.my_idea import MyIdea
registry.add_plugin(Path(__file__).with_name("my_idea.py"))
MyIdea = registry.load("method", "my-idea")

RATE, PULL = 0.1, 0.5


def gradients(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of the mean cross-entropy of a linear layer, by hand: (p - onehot(y)) x / n."""
    logits = x @ weight.t() + bias
    error = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    error[torch.arange(len(y)), y] -= 1
    return error.t() @ x / len(x), error.mean(dim=0)


def test_two_updates_descend_the_formula() -> None:
    """Each is w <- w - rate (dCE/dw + alpha (w - w_source)); the pull is 0 in the first."""
    generator = torch.manual_seed(1)
    net = nn.Linear(6, 3).double()  # double precision: a formula can be compared to 1e-6
    x = torch.randn(5, 6, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    source = [p.detach().clone() for p in net.parameters()]
    expected = [p.clone() for p in source]
    for _ in range(2):
        slopes = gradients(expected[0], expected[1], x, y)
        expected = [
            w - RATE * (g + PULL * (w - start))
            for w, g, start in zip(expected, slopes, source, strict=True)
        ]

    method = MyIdea(MyIdea.Config(learning_rate=RATE, pull=PULL, epochs=2))
    method.prepare(TinyModel(net, head_name=""), DomainView("source", x, y, 5, generator))
    with Window(make_tracker([make_device()], method.stored), budget_s=1e6) as window:
        method.adapt(DomainView("target", x, y, 5, generator), window)

    for new, old in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(new.detach(), old, rtol=1e-6, atol=1e-9)


def test_the_contract() -> None:
    """What 'bench check' checks."""
    failed = [result.line for result in check_method("my-idea") if not result.passed]
    assert not failed, "\n".join(failed)
