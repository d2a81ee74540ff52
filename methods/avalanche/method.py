"""Base of the methods that train through the Avalanche library.

Importing Avalanche takes seconds, so what needs it, `loop` and `plugins`, is imported in
``prepare``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig
from bench.contracts.data import Batch, DomainView, Inputs
from bench.contracts.method import Need, tunable
from bench.contracts.state import capture, restore
from bench.run.window import Window


class AvalancheConfig(MethodConfig):
    """Settings of every method that Avalanche trains.

    ``learning_rate``: of AdamW, which transformers need where the papers train small
    convolutional networks with SGD; ``epochs``: passes over the adaptation split.
    """

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


class AvalancheMethod(Method):
    """A supervised method whose loop is Avalanche's, stopped and charged by the window.

    The source counts as the first experience: what the method would have kept of it (weights,
    importances, samples) is computed in ``prepare``, free. The head has all outputs from
    the start, so new classes change no module. What a method keeps of a domain is consolidated
    when the domain ends or its window closes, in a section named "consolidation". Draws from
    memory come from a generator of the method's own.

    A subclass gives `make_plugin` (or `make_strategy`), `learned` and `relearn`.
    """

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering", "generation",
    )  # fmt: skip
    family = "CL"
    shifts = ("domain", "class")
    protocols = ("periodic",)
    needs: ClassVar[tuple[Need, ...]] = ("target_labels",)
    preload = ("bench.methods.avalanche.without_wandb",)
    config: AvalancheConfig

    def make_plugin(self) -> Any:
        """The Avalanche plugin that makes the method; kept as ``self.plugin``."""
        raise NotImplementedError

    def make_strategy(self, batch_size: int) -> Any:
        """The Avalanche strategy; ``batch_size``: of passes that estimate importances."""
        from .loop import Supervised

        self.plugin = self.make_plugin()
        return Supervised.over(self.model, self.optimizer, batch_size, plugins=[self.plugin])

    def importance_batch(self, source: DomainView) -> int:
        """Samples whose mean gradient enters an importance at once."""
        return source.batch_size

    def remember_source(self, source: DomainView) -> None:
        """Treat the source as an experience that has just been learned."""
        self.strategy.remember(source)

    def compose(self, batch: Batch) -> tuple[Inputs, Tensor]:
        """Inputs and labels of one step, from a batch of the current domain."""
        return batch.x, batch.y

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """What the plugin keeps between domains, as tensors and plain values."""

    @abstractmethod
    def relearn(self, learned: dict[str, Any]) -> None:
        """Put back what `learned` gave."""

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model = model
        self.optimizer = torch.optim.AdamW(model.module.parameters(), lr=self.config.learning_rate)
        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        self.strategy = self.make_strategy(self.importance_batch(source))
        self.remember_source(source)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.strategy.learn(domain, window, self.config.epochs, self.compose)

    def state(self) -> dict[str, Any]:
        return capture(self._parts())

    def load_state(self, state: Mapping[str, Any]) -> None:
        parts = self._parts()
        restore(parts, state)
        self.strategy.clock.train_exp_counter = parts["experiences"]
        self.relearn(parts["learned"])

    def _parts(self) -> dict[str, Any]:
        held = {name: getattr(self, name) for name in ("model", "optimizer", "generator")}
        experiences = self.strategy.clock.train_exp_counter
        return {**held, "experiences": experiences, "learned": self.learned()}
