"""Models with BatchNorm: no batch of one sample, whose statistics are not defined."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from event_log import EventLog
from torch import nn

from bench.contracts.data import DomainView
from bench.run.window import Window
from bench.testing import LearningMethod, TinyModel, TinyStream, TinyStreamConfig, run_method


class Sized(LearningMethod):
    """Learns, and logs the sizes of its batches."""

    sizes: ClassVar[EventLog]

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        for batch in window.steps(domain.batches()):
            type(self).sizes.append(len(batch))
            loss = self.model(batch.x).logsumexp(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def sizes(model: TinyModel, samples: int, batch_size: int, **protocol: Any) -> list[int]:
    Sized.sizes = EventLog()
    stream = TinyStream(TinyStreamConfig(domains=1, samples=samples))
    run_method(Sized(), model=model, stream=stream, batch_size=batch_size, **protocol)
    return Sized.sizes.read()


def batch_norm() -> TinyModel:
    return TinyModel(nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "2")


@pytest.mark.parametrize("name", ["periodic", "online"])
@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"), [(5, 4, [5]), (7, 3, [3, 4]), (6, 4, [4, 2])]
)
def test_a_sample_alone_is_joined_to_the_batch_before(
    name: str, samples: int, batch_size: int, expected: list[int]
) -> None:
    assert sizes(batch_norm(), samples, batch_size, name=name) == expected


def test_other_models_get_the_last_sample_by_itself() -> None:
    assert sizes(TinyModel.build(None), 5, 4) == [4, 1]
