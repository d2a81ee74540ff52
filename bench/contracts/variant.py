"""The contract of a model variant: what a foundation model becomes before it is deployed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from bench.contracts.model import FoundationModel, ModelConfig

if TYPE_CHECKING:
    from bench.contracts.data import DomainView


class Variant(ABC):
    """Makes the model that a device gets from the one that was trained on the source.

    ``Config`` has at least ``ratio``, how many times narrower the model becomes: suites write
    ``NAME:RATIO``. The work is offline and costs the device nothing.
    """

    Config: ClassVar[type[ModelConfig]]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def make(self, model: FoundationModel, source: DomainView) -> FoundationModel:
        """The variant of ``model``, in evaluation mode; ``source`` is labelled.

        ``model`` stays as it is. Equal for equal model, source and settings.
        """
