"""Evaluations of a model that did not change are not repeated, and those that did are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from event_log import EventLog
from torch import Tensor

from bench.contracts.data import DomainView
from bench.contracts.model import FoundationModel
from bench.run.window import Window
from bench.testing import LearningMethod, TinyStream, TinyStreamConfig, run_method

PREDICTED = EventLog()


class Watched(LearningMethod):
    """Adds to a log what it predicts: the place of the domain."""

    def predict(self, x: Tensor) -> Tensor:
        PREDICTED.append(int(x[0, 0]))
        return super().predict(x)


class Still(Watched):
    """Adapts to nothing."""

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model

    def adapt(self, domain: DomainView, window: Window) -> None:
        pass


class Counts(Watched):
    """Learns one number, without a step."""

    def prepare(self, model: Any, source: DomainView) -> None:
        super().prepare(model, source)
        self.shift = 0.0

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.shift += 1.0

    def predict(self, x: Tensor) -> Tensor:
        return super().predict(x) + torch.tensor([self.shift, 0.0])


class Draws(Still):
    """Predicts by chance."""

    def predict(self, x: Tensor) -> Tensor:
        return super().predict(x) + torch.rand(len(x), 2)


def predicted(method: LearningMethod, domains: int = 2, **protocol: Any) -> list[int]:
    PREDICTED.__init__()
    stream = TinyStream(TinyStreamConfig(domains=domains))
    run_method(method, stream=stream, batch_size=10, **protocol)
    return PREDICTED.read()


def test_a_method_that_learns_nothing_predicts_each_split_once() -> None:
    assert predicted(Still()) == [0, 1, 2]
    assert predicted(Still(), reset="domain") == [0, 1, 2]
    assert predicted(Still(), evaluate_all=True) == [0, 1, 2]


@pytest.mark.parametrize("method", [Watched, Counts])
def test_after_learning_every_split_is_predicted_again(method: type[LearningMethod]) -> None:
    # before and after each, the first again at the end (the second is as it was), the source
    assert predicted(method()) == [0, 1, 1, 2, 2, 1, 0]


def test_predictions_by_chance_are_not_taken_as_known() -> None:
    assert predicted(Draws()) == [0, 1, 1, 2, 2, 1, 2, 0]


def test_accuracies_are_those_of_repeated_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.run import evaluator

    def results() -> list[Any]:
        methods = (Still(), Watched(), Counts())
        return [run_method(m, batch_size=5, evaluate_all=True).model_dump() for m in methods]

    reused = results()
    monkeypatch.setattr(evaluator._State, "is_known", False)
    assert results() == reused
