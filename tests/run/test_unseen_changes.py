"""Changes that no step charges and state that no copy reaches: what a run notices."""

from __future__ import annotations

import functools
import importlib
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel
from bench.errors import BenchError, Unsupported
from bench.run.window import Window
from bench.testing import LearningMethod, run_method

OUTSIDE = "weights changed outside a step"
COUNTER: Any = None
"""A module that a test imports."""


class Outside(LearningMethod):
    """Changes the weights beside its steps, in one of several ways."""

    def __init__(self, way: str, when: str) -> None:
        super().__init__()
        self.way = way
        self.when = when

    def adapt(self, domain: DomainView, window: Window) -> None:
        if self.when == "before":
            self.change()
        for number, batch in enumerate(domain.batches()):
            with window.step(batch):
                self.model(batch.x)
            if self.when == "between" and number == 0:
                self.change()
        if self.when == "after":
            self.change()

    def change(self) -> None:
        weight = self.model.module.body.weight
        if self.way == "data":
            weight.data = weight.data * 2
        elif self.way == "data in place":
            weight.data.mul_(2)
        elif self.way == "numpy":
            weight.detach().numpy()[:] += 1.0
        elif self.way == "buffer of memory":
            memoryview(weight.detach().numpy()).cast("B")[0:16] = bytes(16)
        elif self.way == "optimizer":
            clone = self.model.clone()
            optimizer = torch.optim.SGD(clone.module.parameters(), lr=0.1)
            clone(torch.ones(4, 2)).sum().backward()
            optimizer.step()
            self.model = clone
        else:
            with torch.no_grad():
                weight.mul_(2)


WAYS = ["data", "data in place", "numpy", "buffer of memory", "optimizer", "in place"]


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_weights_that_change_outside_a_step_are_noticed(way: str, when: str) -> None:
    with pytest.raises(BenchError, match=OUTSIDE):
        run_method(Outside(way, when), batch_size=5)


class Assigns(LearningMethod):
    """Trains a copy, and predicts with it afterwards."""

    def __init__(self, charged: bool) -> None:
        super().__init__()
        self.charged = charged

    def adapt(self, domain: DomainView, window: Window) -> None:
        copy = self.model.clone()
        batches = domain.batches()
        for batch in window.steps(batches) if self.charged else batches:
            with torch.no_grad():
                copy.module.head.weight.add_(batch.x.mean())
        self.model = copy


def test_a_copy_may_be_trained_in_steps_and_take_the_models_place() -> None:
    run_method(Assigns(charged=True), batch_size=5)
    with pytest.raises(BenchError, match=OUTSIDE):
        run_method(Assigns(charged=False), batch_size=5)


# --- predict only reads -----------------------------------------------------------------------


class Learns(LearningMethod):
    """Changes something while it predicts."""

    bank: ClassVar[list[float]] = []

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.mean = torch.zeros(2)

    def predict(self, x: Tensor) -> Tensor:
        weight = self.model.module.head.weight
        if self.way == "data":
            weight.data.add_(0.1)
        elif self.way == "numpy":
            weight.detach().numpy()[:] += 0.1
        elif self.way == "assigned":
            self.mean = self.mean + x.mean(0)
        elif self.way == "class attribute":
            type(self).bank.append(float(x.mean()))
        elif self.way == "global":
            MEMORY["n"] = MEMORY.get("n", 0) + len(x)
        return super().predict(x)


MEMORY: dict[str, Any] = {}


@pytest.mark.parametrize("way", ["data", "numpy", "assigned", "class attribute", "global"])
def test_predict_must_only_read(way: str) -> None:
    with pytest.raises(BenchError, match="predict of Learns changes the method's state"):
        run_method(Learns(way))


@pytest.mark.parametrize("way", ["data", "numpy", "assigned"])
def test_predict_must_only_read_on_a_stream(way: str) -> None:
    class OnTheStream(Learns):
        def predict(self, x: Tensor) -> Tensor:
            return super().predict(x) if x[0, 1] < 100 else LearningMethod.predict(self, x)

    with pytest.raises(BenchError, match="changes the method's state"):
        run_method(OnTheStream(way), name="online", batch_size=5)


# --- state that a copy does not reach ---------------------------------------------------------


class Hidden(LearningMethod):
    """Keeps the model, or what it learns, where vars(method) does not lead to it."""

    counts: ClassVar[dict[str, float]] = {}

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        seen: list[Tensor] = []
        if self.way == "lambda":
            self.forward = lambda x: model(x)
        elif self.way == "closure in a list":

            def stage(x: Tensor) -> Tensor:
                return model.module(x)

            self.stages = [stage]
        elif self.way == "default":
            self.forward = lambda x, net=model.module: net(x)
        elif self.way == "hook":
            model.head.register_forward_hook(
                lambda m, i, o: seen.append(o.detach()) if m.training else None
            )
        elif self.way == "append of a list":
            self.note = seen.append
        elif self.way == "cache":
            self.forward = functools.lru_cache(lambda number: torch.zeros(number))

    def adapt(self, domain: DomainView, window: Window) -> None:
        super().adapt(domain, window)
        if self.way == "global":
            MEMORY["bias"] = MEMORY.get("bias", 0) + 1
        elif self.way == "class attribute":
            self.counts["bias"] = self.counts.get("bias", 0) + 1
        elif self.way == "rebound class attribute":
            type(self).bias = getattr(type(self), "bias", 0) + 1  # type: ignore[attr-defined]


IN_AN_ATTRIBUTE = [
    "lambda", "closure in a list", "default", "hook", "append of a list", "cache",
]  # fmt: skip
ELSEWHERE = ["global", "class attribute", "rebound class attribute"]


@pytest.mark.parametrize("way", [*IN_AN_ATTRIBUTE, *ELSEWHERE])
def test_state_that_a_reset_does_not_reach_makes_the_cell_unsupported(way: str) -> None:
    with pytest.raises(Unsupported, match="reset: domain needs a method whose state can be copied"):
        run_method(Hidden(way), reset="domain", batch_size=5)
    run_method(Hidden(way), batch_size=5)  # nothing is copied


@pytest.mark.parametrize("way", ["lambda", "hook", *ELSEWHERE])
def test_state_that_a_copy_does_not_reach_is_refused_where_the_stream_does_not_wait(
    way: str,
) -> None:
    with pytest.raises(Unsupported, match="online-timed needs a method whose state can be copied"):
        run_method(Hidden(way), name="online-timed", interval_s=1000.0, batch_size=5)


def test_the_attribute_and_the_global_are_named() -> None:
    with pytest.raises(Unsupported, match="attribute 'forward' holds a function"):
        run_method(Hidden("lambda"), reset="domain")
    with pytest.raises(Unsupported, match=f"'MEMORY' of module {__name__} changes while it runs"):
        run_method(Hidden("global"), reset="domain")


class Counting(LearningMethod):
    """Lets a module count."""

    def adapt(self, domain: DomainView, window: Window) -> None:
        super().adapt(domain, window)
        COUNTER.seen["domains"] = COUNTER.seen.get("domains", 0) + 1


@pytest.mark.parametrize("folder", ["other/lib/site-packages", "mine"])
def test_what_a_library_keeps_is_its_own_in_another_environment_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    name = f"counter_in_{place.name.replace('-', '_')}"
    (place / f"{name}.py").write_text("seen = {}\n")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setitem(globals(), "COUNTER", importlib.import_module(name))
    if folder == "mine":
        with pytest.raises(Unsupported, match=f"'seen' of module {name} changes while it runs"):
            run_method(Counting(), reset="domain", batch_size=5)
    else:
        run_method(Counting(), reset="domain", batch_size=5)


class Bound(LearningMethod):
    """Reaches everything through itself, in ways that a copy follows."""

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.optimizer, 1000)
        self.step = self._step
        self.later = lambda: self.model
        self.twice = functools.partial(model.module.forward)
        self.forward = model.module.forward

    def _step(self) -> FoundationModel:
        return self.model

    def predict(self, x: Tensor) -> Tensor:
        self.model.train(False)
        assert self.step() is self.later() is self.model
        return self.forward(x) + self.twice(x) - self.model(x)


def test_bound_methods_and_what_goes_through_self_are_copied() -> None:
    bound = run_method(Bound(), reset="domain", batch_size=5)
    plain = run_method(LearningMethod(), reset="domain", batch_size=5)
    for a, b in zip(bound.stages, plain.stages, strict=True):
        assert (a.before, a.after) == (b.before, b.after)


class DrawsFromTheSystem(LearningMethod):
    """Holds a generator without a state, in itself and in its class."""

    chance = random.SystemRandom()

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        super().prepare(model, source)
        self.own = random.SystemRandom()


def test_a_generator_that_keeps_no_state_is_no_hindrance() -> None:
    run_method(DrawsFromTheSystem())
