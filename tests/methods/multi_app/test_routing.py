"""Samples reach their own application's proxy, and outputs come back in order."""

from __future__ import annotations

import pytest
import torch

from bench.contracts.data import DomainView, Placed, subset, take
from bench.contracts.model import FoundationModel
from bench.errors import BenchError, LabelsHidden
from bench.methods.multi_app.routing import Owner, Routed, split
from bench.tasks.applications import owners


class Adder(FoundationModel):
    """Adds its number to inputs of one feature."""

    @classmethod
    def build(cls, config=None, input_shape=(1,), classes=1):
        return cls(torch.nn.Linear(1, 1))

    def __call__(self, x):
        return self.module(x["x"] if isinstance(x, dict) else x)

    def blocks(self):
        return []


def adder(number: float) -> Adder:
    made = Adder.build()
    with torch.no_grad():
        made.module.weight.fill_(1.0)
        made.module.bias.fill_(number)
    return made


X = torch.arange(7.0).unsqueeze(1)
APP = torch.tensor([2, 0, 1, 1, 2, 0, 2])


def test_each_sample_goes_to_its_application_and_comes_back_in_its_place() -> None:
    model = Routed([adder(100.0), adder(200.0), adder(300.0)])
    expected = X + 100.0 * (APP.unsqueeze(1) + 1)
    assert torch.equal(model({"app": APP, "x": X}), expected)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(take({"app": APP, "x": X}, order)), expected[order])
    for i in range(7):
        one = torch.tensor([i])
        assert torch.equal(model(take({"app": APP, "x": X}, one)), expected[one])


def test_inputs_that_do_not_say_belong_to_the_first_application() -> None:
    assert owners(X).tolist() == owners({"x": X}).tolist() == [0] * 7
    assert torch.equal(Routed([adder(5.0)])(X), X + 5.0)
    assert torch.equal(Routed([adder(5.0), adder(6.0)])(X), X + 5.0)


def test_inputs_for_a_gpu_say_their_applications_too() -> None:
    inputs = Placed({"app": APP, "x": X}, torch.device("cpu"))
    assert owners(inputs).tolist() == APP.tolist()
    assert owners(subset(inputs, torch.tensor([3, 0]))).tolist() == [1, 2]
    nested = Placed(inputs, torch.device("cpu"))  # lazy inputs, as those of files
    assert owners(nested).tolist() == APP.tolist()
    assert owners(Placed(inputs, torch.device("meta"))).device.type == "meta"
    assert owners(Placed(X, torch.device("cpu"))).tolist() == [0] * 7
    domain = DomainView("d", inputs, None, 2, torch.Generator())
    views = split(domain, [Owner(app) for app in range(3)])
    assert [len(view) for view in views.values()] == [2, 2, 3]


@pytest.mark.parametrize("app", [-1, 2])
def test_an_application_that_there_is_not_is_named(app: int) -> None:
    model = Routed([adder(1.0), adder(2.0)])
    with pytest.raises(BenchError, match=rf"\[{app}\]"):
        model({"app": torch.full((7,), app), "x": X})


def test_views_hold_each_applications_samples_and_no_labels() -> None:
    y = torch.arange(7)
    domain = DomainView("d", {"app": APP, "x": X}, y, 2, torch.Generator().manual_seed(3))
    views = split(domain, [Owner(app) for app in range(4)])
    assert list(views) == [0, 1, 2]  # the fourth has no sample
    for app, view in views.items():
        assert torch.equal(view.x["x"], X[app == APP])
        assert (view.name, view.batch_size, view.labelled) == ("d", 2, False)
        with pytest.raises(LabelsHidden):
            _ = view.y
        assert torch.equal(view.rng_state, domain.rng_state)
