"""Base of the methods that train through the Avalanche library.

Importing Avalanche takes seconds, so what needs it, `loop` and `plugins`, is imported in
``prepare``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig
from bench.contracts.data import Batch, DomainView, Inputs
from bench.contracts.method import Need, tunable
from bench.contracts.state import capture, restore
from bench.run.window import Window

from .._loss_classes import LossClasses
from .._optimizers import OptimizerName, OptimizerState, make_optimizer


class AvalancheConfig(MethodConfig):
    """Settings of every method that Avalanche trains.

    ``optimizer``: AdamW where the papers train small convolutional networks with SGD, because it is
    what trains transformers (on ``task-shift`` SGD at 0.03 was worse for A-GEM, GEM, replay and
    DER++, and at 0.1 worse still, where GEM was not tried); ``sgd`` is without momentum, as in
    mammoth and FACIL. ``learning_rate``: constant; ``epochs``: passes over the adaptation split.
    ``optimizer_state``: ``new``, each domain begins with an optimizer of its own, as in mammoth,
    FACIL and the code of A-GEM's authors, or ``kept``, its moments go on from domain to domain, as
    in Avalanche.
    ``loss_classes``: what the cross-entropy covers, ``all`` outputs of the head, the classes
    ``seen`` so far, or those of the current ``task``, its domain. Known from the labels that have
    arrived; of generation always all, for words belong to no domain.
    """

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 15, log=True, unit="passes", ge=1, le=100)
    optimizer: OptimizerName = "adamw"
    optimizer_state: OptimizerState = "new"
    loss_classes: LossClasses = "all"


class TaskLossConfig(AvalancheConfig):
    """Settings of the methods that were published with a head for each task.

    Their cross-entropy covers the classes of the current task alone, as in FACIL and the code of
    GEM's and A-GEM's authors; mammoth has all outputs, and for LwF the seen classes.
    """

    loss_classes: LossClasses = "task"


class RehearsalConfig(AvalancheConfig):
    """Settings of the methods that train on samples of several domains together.

    Their cross-entropy covers all outputs, as in mammoth, or the classes seen so far, as in FACIL;
    ``task`` has no meaning, for a batch is of several.
    """

    loss_classes: Literal["all", "seen"] = "all"


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
        over = self.config.loss_classes
        return Supervised.over(self.model, self.optimizer, batch_size, over, plugins=[self.plugin])

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
        parameters, c = list(model.module.parameters()), self.config
        self.optimizer = make_optimizer(c.optimizer, parameters, c.learning_rate, momentum=0.0)
        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        self.strategy = self.make_strategy(self.importance_batch(source))
        self.strategy._criterion.arrive(source)
        self.remember_source(source)

    def adapt(self, domain: DomainView, window: Window) -> None:
        if self.config.optimizer_state == "new":
            self.optimizer.state.clear()
        self.strategy._criterion.arrive(domain)
        self.strategy.learn(domain, window, self.config.epochs, self.compose)

    def state(self) -> dict[str, Any]:
        return capture(self._parts())

    def load_state(self, state: Mapping[str, Any]) -> None:
        parts = self._parts()
        restore(parts, state)
        self.strategy.clock.train_exp_counter = parts["experiences"]
        self.strategy._criterion.seen = set(parts["seen"])
        self.relearn(parts["learned"])

    def _parts(self) -> dict[str, Any]:
        held = {name: getattr(self, name) for name in ("model", "optimizer", "generator")}
        experiences = self.strategy.clock.train_exp_counter
        seen = sorted(self.strategy._criterion.seen)
        return {**held, "experiences": experiences, "seen": seen, "learned": self.learned()}
