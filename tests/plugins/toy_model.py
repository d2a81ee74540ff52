"""A model in one file: the small network that ships for tests, trained in a moment."""

from __future__ import annotations

from bench import register
from bench.contracts.model import SourceTraining
from bench.testing import TinyModel


@register("model", "toy-net")
class ToyNet(TinyModel):
    """Two linear layers."""

    source_training = SourceTraining(epochs=20, batch_size=16, learning_rate=0.05)
