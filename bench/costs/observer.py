"""Listening to what a run is charged, without taking part in the charging."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.contracts.data import Batch
from bench.costs.pricing import MemoryFootprint
from bench.costs.step_tracer import StepTrace


@dataclass(frozen=True)
class ChargedStep:
    """A step or section that has ended.

    Attributes
    ----------
    kind : as the method calls it
    seconds : charged, by the name of the device
    trace : what it did; None unless it was traced
    """

    kind: str
    seconds: Mapping[str, float]
    trace: StepTrace | None = None


class StepObserver:
    """Receives what happens in a run, from its tracker; override the events of interest.

    What an observer does in them is neither traced nor charged.
    """

    def on_window(self) -> None:
        """A window has opened."""

    def on_batch(self, kind: str, batch: Batch, data_dependent: bool) -> None:
        """A step over a batch fits the window and is about to begin."""

    def on_section(self, kind: str) -> None:
        """A section is about to begin."""

    def on_step(self, step: ChargedStep) -> None:
        """A step or section has ended and was charged."""

    def on_inference(self, trace: StepTrace) -> None:
        """A prediction was traced, as the price of inference."""

    def on_memory(self, footprint: MemoryFootprint) -> None:
        """A modelled device must hold so much at once."""
