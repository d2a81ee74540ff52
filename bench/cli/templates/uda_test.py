"""my-idea: an update against its formula, and the contract that every method keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench import DomainView, Window, registry
from bench.conformance import check_method
from bench.costs.factory import make_tracker
from bench.testing import TinyModel, TinyNet, make_device

# In the project's own folders: from bench.methods.my_idea import MyIdea
registry.add_plugin(Path(__file__).with_name("my_idea.py"))
MyIdea = registry.load("method", "my-idea")

RATE = 0.1


def information(scale: Tensor, shift: Tensor, net: TinyNet, x: Tensor) -> Tensor:
    """Mean entropy less the entropy of the mean, as functions of the norm's scale and shift."""
    hidden = net.body(x)
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    normed = centred / (centred.pow(2).mean(dim=1, keepdim=True) + net.norm.eps).sqrt()
    logits = net.head(torch.tanh(scale * normed + shift))
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    mean = p.mean(dim=0)
    return -(p * p.log()).sum() / len(x) + (mean * mean.log()).sum()


def test_one_update_descends_the_formula_and_moves_nothing_else() -> None:
    """It is w <- w - rate dL/dw for scale and shift."""
    generator = torch.manual_seed(1)
    model = TinyModel.build(None, (6,), 3)
    net = model.module.double()  # double precision: a formula can be compared to 1e-6
    assert isinstance(net, TinyNet)
    x = torch.randn(5, 6, dtype=torch.float64)
    old = [p.detach().clone().requires_grad_() for p in net.norm.parameters()]
    gradients = torch.autograd.grad(information(old[0], old[1], net, x), old)
    head = net.head.weight.detach().clone()

    method = MyIdea(MyIdea.Config(learning_rate=RATE, epochs=1))
    method.prepare(model, DomainView("source", x, torch.zeros(5).long(), 5, generator))
    with Window(make_tracker([make_device()], method.stored), budget_s=1e6) as window:
        method.adapt(DomainView("target", x, None, 5, generator), window)

    for new, start, gradient in zip(net.norm.parameters(), old, gradients, strict=True):
        assert gradient.abs().max() > 1e-5
        torch.testing.assert_close(new, start - RATE * gradient, rtol=1e-6, atol=1e-9)
    assert torch.equal(net.head.weight, head)


def test_the_contract() -> None:
    """What 'bench check' checks."""
    failed = [result.line for result in check_method("my-idea") if not result.passed]
    assert not failed, "\n".join(failed)
