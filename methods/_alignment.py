"""What the alignment methods share: the source task plus a loss on the features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig, Window, choice, tunable
from bench.contracts.data import Batch, DomainView
from bench.contracts.method import Need

from ._losses import at_least_float32, take_step, train_only
from ._optimizers import (
    OptimizerName,
    OptimizerState,
    Schedule,
    begin_adaptation,
    make_optimizer,
    planned_steps,
    set_rate,
)


class AlignmentConfig(MethodConfig):
    """The settings of the recipe.

    ``learning_rate``: at the start of an adaptation; ``epochs``: passes over the adaptation split;
    ``optimizer``: ``sgd`` has momentum 0.9; ``weight_decay``: of ``sgd``; ``schedule``: ``decay``
    is (1 + 10 p)^-0.75 with p the share of an adaptation's steps that are done, anew in each;
    ``optimizer_state``: ``new`` in each adaptation, as every paper's training is, or ``kept``
    over the stream; ``trained``: all weights but the head's (``body``), as EdgeTA has it, or
    ``all``; ``head_rate``: factor on the learning rate of the head, where it is trained.
    """

    learning_rate: float = tunable(3e-4, 1e-5, 1e-1, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 15, unit="passes", log=True, ge=1, le=100)
    optimizer: OptimizerName = choice("adamw", "sgd")
    weight_decay: float = Field(5e-4, ge=0, le=1.0)
    schedule: Schedule = choice("constant", "decay")
    optimizer_state: OptimizerState = "new"
    trained: Literal["body", "all"] = "body"
    head_rate: float = Field(1.0, gt=0, le=100.0)


class Alignment(Method):
    """Source cross-entropy + a loss that brings source and target features together.

    Each step takes one labelled source batch and one unlabelled target batch. Optimizer, schedule
    and trained weights are settings. Their defaults are those of each method's paper, and here, for
    ``feature-alignment``, ``cua`` and the control, those of the group behind EdgeTA; with the same
    settings the methods differ by `alignment_loss` alone, and ``source-fine-tune``, which has none,
    is the control of them all.
    """

    tasks: ClassVar[tuple[str, ...]] = (
        "classification", "token-classification", "segmentation",
        "detection", "visual-question-answering",
    )  # fmt: skip
    needs: ClassVar[tuple[Need, ...]] = ("source_data",)
    Config = AlignmentConfig
    config: AlignmentConfig

    def prepare(self, model: FoundationModel, source: DomainView) -> None:
        self.model, self.source = model, source
        c = self.config
        body, head = model.body_parameters(), model.head_parameters() if c.trained == "all" else []
        train_only(model, [*body, *head])
        groups: list[dict[str, Any]] = [{"params": body}]
        groups.append({"params": head, "lr": c.learning_rate * c.head_rate})
        self.optimizer = self.make_optimizer([group for group in groups if group["params"]])

    def make_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer over these groups of parameters."""
        c = self.config
        return make_optimizer(c.optimizer, groups, c.learning_rate, weight_decay=c.weight_decay)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        c = self.config
        begin_adaptation(self.optimizer, c.optimizer_state)
        steps = planned_steps(domain, c.epochs)
        source_batches = self.source.infinite()
        for step, batch in enumerate(window.steps(domain.batches(c.epochs))):
            set_rate(self.optimizer, c.schedule, step / steps)
            labelled = next(source_batches)
            task, source_features = self.source_part(labelled)
            added = self.adaptation_loss(source_features, batch, step / steps)
            loss = task + added
            take_step(self.optimizer, loss)
            window.log(task=task.detach(), alignment=added.detach())

    def source_part(self, labelled: Batch) -> tuple[Tensor, Tensor]:
        """The task loss on a source batch, a scalar, and its pooled features, (n, width)."""
        logits, features = self.model.with_features(labelled.x)
        return self.model.loss(logits, labelled.y), self.model.pooled(features, labelled.x)

    def adaptation_loss(self, source_features: Tensor, target: Batch, progress: float) -> Tensor:
        """What a step adds to the source's task loss, weighted, a scalar.

        ``source_features``: pooled, (n, width); ``progress``: share of the steps done, in [0, 1).
        """
        _, target_features = self.model.with_features(target.x)
        target_features = self.model.pooled(target_features, target.x)
        return self.alignment_loss(
            at_least_float32(source_features), at_least_float32(target_features), progress
        )

    def alignment_loss(self, source: Tensor, target: Tensor, progress: float) -> Tensor:
        """Weighted distance between source (n, width) and target (m, width) features, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} must say how it aligns features")
