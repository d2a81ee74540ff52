"""my-idea: an update against its formula, and the contract that every method keeps."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from bench import DomainView, FoundationModel, Window, registry
from bench.conformance import check_method
from bench.costs.device_profile import load_device
from bench.costs.factory import make_tracker

# In the project's own folders: from bench.methods.my_idea import MyIdea
registry.add_plugin(Path(__file__).with_name("my_idea.py"))
MyIdea = registry.load("method", "my-idea")

RATE = 0.1


class Net(nn.Module):
    """Small, in double precision, so that a formula can be compared to 1e-6."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, 3)."""
        logits: Tensor = self.head(self.norm(self.body(x)))
        return logits


class Model(FoundationModel):
    """The network behind the contract of a model."""

    @classmethod
    def build(cls, config: object, input_shape: object, classes: object) -> Model:
        torch.manual_seed(0)
        return cls(Net().double())

    def blocks(self) -> list:
        return []


def information(scale: Tensor, shift: Tensor, net: Net, x: Tensor) -> Tensor:
    """Mean entropy less the entropy of the mean, as functions of the norm's scale and shift."""
    hidden = x @ net.body.weight.t() + net.body.bias
    centred = hidden - hidden.mean(dim=1, keepdim=True)
    normed = centred / (centred.pow(2).mean(dim=1, keepdim=True) + net.norm.eps).sqrt()
    logits = (scale * normed + shift) @ net.head.weight.t() + net.head.bias
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    mean = p.mean(dim=0)
    return -(p * p.log()).sum() / len(x) + (mean * mean.log()).sum()


def test_one_update_descends_the_formula_and_moves_nothing_else() -> None:
    """It is w <- w - rate dL/dw for scale and shift."""
    model = Model.build(None, None, None)
    net = model.module
    assert isinstance(net, Net)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    old = [p.detach().clone().requires_grad_() for p in net.norm.parameters()]
    gradients = torch.autograd.grad(information(old[0], old[1], net, x), old)
    head = net.head.weight.detach().clone()

    method = MyIdea(MyIdea.Config(learning_rate=RATE, epochs=1))
    method.prepare(model, DomainView("source", x, torch.zeros(5).long(), 5, generator))
    with Window(make_tracker([load_device("xavier-nx")], method.stored), budget_s=60.0) as window:
        method.adapt(DomainView("target", x, None, 5, generator), window)

    for new, start, gradient in zip(net.norm.parameters(), old, gradients, strict=True):
        assert gradient.abs().max() > 1e-5
        torch.testing.assert_close(new, start - RATE * gradient, rtol=1e-6, atol=1e-9)
    assert torch.equal(net.head.weight, head)


def test_the_contract() -> None:
    """What 'bench check' checks."""
    failed = [result.line for result in check_method("my-idea") if not result.passed]
    assert not failed, "\n".join(failed)
