"""Avalanche's training loop under a window: the domain's own batches, charged and stopped."""

from __future__ import annotations

from . import without_wandb  # noqa: F401

# isort: split

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn

from bench.contracts.data import Batch, DomainView, Inputs
from bench.contracts.model import FoundationModel
from bench.run.window import Window

from .._loss_classes import ClassLoss, LossClasses
from .memory import Samples, ViewSamples, portable

Compose = Callable[[Batch], tuple[Inputs, Tensor]]
"""Inputs and labels of a step from a batch of the current domain."""


class Forward(nn.Module):
    """A foundation model as the module that Avalanche drives."""

    def __init__(self, model: FoundationModel) -> None:
        super().__init__()
        self.foundation = model
        self.module = model.module

    def forward(self, x: Inputs) -> Tensor:
        """Task outputs."""
        return self.foundation(x)


class UnitForward(Forward):
    """A foundation model that gives the logits of units."""

    def forward(self, x: Inputs) -> Tensor:
        """Logits (units, classes)."""
        return self.foundation.units(self.foundation(x), x)


@dataclass
class Experience:
    """What plugins read of an experience: its dataset. There are no task labels."""

    dataset: Samples


class Silent(SupervisedPlugin):
    """An evaluator that measures nothing: the protocol evaluates."""

    def get_last_metrics(self) -> dict[str, Any]:
        """No metrics."""
        return {}


class WindowedLoop:
    """What every strategy here changes of Avalanche's loop; stands before it among the bases.

    Batches come from the view, in its order, so that seeds are paired across methods. Each
    iteration is a charged step, what plugins do after the last one a section named
    "consolidation". Without a window (offline) nothing is charged.
    """

    domain: DomainView | None = None
    _window: Window | None = None
    _compose: Compose | None = None

    @classmethod
    def over(
        cls,
        model: FoundationModel,
        optimizer: torch.optim.Optimizer,
        batch_size: int,
        loss_classes: LossClasses = "all",
        **more: Any,
    ) -> Any:
        """A strategy that trains ``model``; ``batch_size``: of passes other than training."""
        strategy: Any = cls
        return strategy(
            model=Forward(model),
            optimizer=optimizer,
            criterion=ClassLoss(model, loss_classes),
            train_mb_size=batch_size,
            device=next(model.module.parameters()).device,
            evaluator=Silent(),
            **more,
        )

    def learn(
        self, domain: DomainView, window: Window | None, epochs: int, compose: Compose
    ) -> None:
        """Train on a domain until it is done or the window closes, then consolidate."""
        self.domain, self._window, self._compose = domain, window, compose
        self.train_epochs = domain.max_passes(epochs)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Avalanche warns of its own deprecations
                self.train(Experience(ViewSamples(domain)), eval_streams=[])  # type: ignore[attr-defined]
        finally:
            self.domain = self._window = self._compose = None

    def remember(self, domain: DomainView) -> None:
        """Consolidate a domain as if it had just been learned; offline."""
        self.experience: Any = Experience(ViewSamples(domain))
        self._after_training_exp()
        self._train_cleanup()  # type: ignore[attr-defined]
        self.optimizer.zero_grad()  # type: ignore[attr-defined]

    def train_dataset_adaptation(self, **_: Any) -> None:
        """Nothing: the loader reads the view."""

    def check_model_and_optimizer(self, **_: Any) -> None:
        """Nothing: the head has a fixed size."""

    def make_train_dataloader(self, **_: Any) -> None:
        """Put the domain's own batches in the place of Avalanche's loader."""
        self.dataloader = self  # iterated anew for each pass

    def _unpack_minibatch(self) -> None:
        """Nothing: batches come on their device, and dicts of tensors stay what they are."""

    def __iter__(self) -> Iterator[list[Any]]:
        assert self.domain is not None
        assert self._compose is not None
        for batch in self.domain.batches():
            with nullcontext(True) if self._window is None else self._window.step(batch) as fits:
                if not fits:
                    self.stop_training()  # type: ignore[attr-defined]
                    return
                x, y = self._compose(batch)
                yield [portable(x), y, torch.zeros_like(y)]

    def _after_update(self, **settings: Any) -> None:
        super()._after_update(**settings)  # type: ignore[misc]
        if self._window is not None:
            self._window.log(loss=self.loss.detach())  # type: ignore[attr-defined]

    def _after_training_exp(self, **settings: Any) -> None:
        window = self._window
        with nullcontext() if window is None else window.section("consolidation"):
            super()._after_training_exp(**settings)  # type: ignore[misc]


class Supervised(WindowedLoop, SupervisedTemplate):
    """Avalanche's supervised loop: cross-entropy on each batch, and what plugins add."""
