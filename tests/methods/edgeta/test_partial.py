"""Partial retraining: which neurons are chosen, and that no other moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.methods.edgeta.config import EdgeTAConfig
from bench.methods.edgeta.method import EdgeTA
from bench.methods.edgeta.offline import weights_of
from bench.methods.edgeta.retraining import chosen_rows, retrained, retrained_layers, training_only


def layer() -> nn.Linear:
    made = nn.Linear(2, 4)
    made.weight.grad = torch.tensor([[1.0, -1], [0, 0.5], [-3, 0], [0, 0.1]])
    made.bias.grad = torch.tensor([0.0, 0, 0, -0.6])
    return made


@pytest.mark.parametrize(
    ("selector", "share", "expected"),
    [
        ("gradient", 0.5, [0, 2]),  # sums 2.0, 0.5, 3.0, 0.7
        ("gradient", 0.7, [0, 2, 3]),  # rounded up to a whole neuron
        ("gradient", 0.01, [2]),
        ("inverse", 0.5, [1, 3]),
        ("released", 0.5, [0, 1]),  # all differences are zero: the first ones
    ],
)
def test_chosen_by_what_a_gradient_step_moves(selector, share, expected) -> None:
    assert chosen_rows({"l": layer()}, share, selector)["l"].tolist() == expected


def test_random_neurons_come_from_the_seed() -> None:
    layers = {"l": nn.Linear(2, 64)}
    torch.manual_seed(3)
    first = chosen_rows(layers, 0.25, "random")["l"]
    torch.manual_seed(3)
    assert torch.equal(chosen_rows(layers, 0.25, "random")["l"], first)
    assert len(set(first.tolist())) == 16
    assert first.tolist() != list(range(16))


def test_a_layer_without_gradient_is_an_error() -> None:
    with pytest.raises(BenchError, match=r"partial retraining: l has no gradient; run a backward"):
        chosen_rows({"l": nn.Linear(2, 4)}, 0.5, "gradient")


def test_only_the_chosen_rows_get_gradients() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(3, 4), torch.randn(5, 3)
    with training_only({"l": net}, {"l": torch.tensor([1, 3])}):
        net(x).pow(2).sum().backward()
    inside = net.weight.grad.clone(), net.bias.grad.clone()
    net.zero_grad()
    net(x).pow(2).sum().backward()  # the restriction ended with the context
    for part, whole in zip(inside, (net.weight.grad, net.bias.grad), strict=True):
        assert torch.equal(part[[1, 3]], whole[[1, 3]])
        assert not part[[0, 2]].any()
        assert whole[[0, 2]].abs().min() > 0


@pytest.mark.parametrize("selector", ["gradient", "random", "inverse", "released"])
def test_neurons_that_are_not_chosen_stay_to_the_last_bit(
    build, source, domain, adapt, settings, kind, selector
) -> None:
    config = EdgeTAConfig(**settings, trained_share=0.25, selector=selector, feedback="none")
    method = EdgeTA(config)
    torch.manual_seed(1)
    method.prepare(build(kind), source(kind))
    target = domain(kind, 20, seed=2)
    start: dict[str, Tensor] = {}
    generate = method.generate

    def noted(x: Any) -> Any:
        made = generate(x)
        start.update({n: t.clone() for n, t in weights_of(made[0]).items()})
        return made

    method.generate = noted  # type: ignore[method-assign]
    adapt(method, target)
    moved = {
        name: (tensor != start[name]).reshape(len(tensor), -1).any(dim=1)
        for name, tensor in weights_of(method.model).items()
    }
    layers = retrained_layers(method.model)
    assert len(layers) == {"vit": 6, "bert": 10}[kind]
    for name, linear in layers.items():
        most = -(-linear.out_features // 4)
        assert 0 < int(moved[f"{name}.weight"].sum()) <= most, name
        if selector == "released":
            assert not moved[f"{name}.weight"][most:].any()
    trained = set(retrained(method.model))
    assert not any(rows.any() for name, rows in moved.items() if name not in trained)
