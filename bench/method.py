"""The contract of an adaptation method."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pydantic

if TYPE_CHECKING:
    from torch import Tensor

    from bench.batch import DomainView, Inputs
    from bench.cell import Cell
    from bench.model import FoundationModel
    from bench.window import Window

Need = Literal["source_data", "target_labels", "replay_memory"]
Provenance = Literal["published", "group-harness", "chosen-here"]


class MethodConfig(pydantic.BaseModel, extra="forbid", frozen=True, allow_inf_nan=False):
    """Base of a method's hyperparameters: typed, bounded, part of the run's identity."""


class Method(ABC):
    """Adapts a model to a stream of domains on a device.

    Life of an object: ``prepare`` once, then for each domain of the stream
    ``adapt``; ``predict`` at any time. A subclass sets ``self.model`` in
    ``prepare`` (the default does) and usually overrides ``adapt`` alone.

    Class attributes (literals, so that ``bench list`` reads them without importing):

    family : "reference", "UDA" (unsupervised domain adaptation), "CL" (continual
        learning) or "PEFT" (parameter-efficient fine-tuning)
    tasks : tasks it can run on
    needs : "source_data" (kept on the device), "target_labels", "replay_memory"
    provenance : "published" (one of EdgeTA's baselines by its paper or code),
        "group-harness" (from that group's own harness) or "chosen-here"
    paper : authors, title, venue, year
    preload : modules that are slow to import, loaded once for all runs that need them
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    family: ClassVar[str] = "UDA"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    needs: ClassVar[tuple[Need, ...]] = ()
    provenance: ClassVar[Provenance] = "chosen-here"
    paper: ClassVar[str] = ""
    preload: ClassVar[tuple[str, ...]] = ()

    model: FoundationModel

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def skip(cls, cell: Cell) -> str | None:
        """Why this method does not apply to ``cell``, or None. The reason is recorded."""
        return None

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        """Offline work before deployment, not on the device's bill.

        ``model`` is trained on the source and belongs to this method. ``source`` has labels; it
        is closed after this call unless the method declares that it needs ``source_data``.
        """
        self.model = model

    def adapt(self, domain: DomainView, window: Window) -> None:
        """Adapt to ``domain`` inside ``window``; every step is charged. Default: nothing."""

    def predict(self, x: Inputs) -> Tensor:
        """Task outputs for inputs of n samples; called without gradients. Default: the model."""
        self.model.train(False)
        return self.model(x)

    def stored(self) -> Any:
        """What lives in the device's memory between steps; default: all that the object holds.

        Walked for tensors, modules and optimisers; data views count as storage, not memory.
        """
        return vars(self)
