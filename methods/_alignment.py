"""What the alignment methods share: the source task plus a loss on the features."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from bench import FoundationModel, Method, MethodConfig, Window, tunable
from bench.contracts.data import Batch, DomainView
from bench.contracts.method import Need

from ._losses import at_least_float32, take_step, train_only


class AlignmentConfig(MethodConfig):
    """``learning_rate``: of AdamW; ``epochs``: passes over the adaptation split."""

    learning_rate: float = tunable(3e-4, 1e-5, 1e-2, log=True, ge=1e-8, le=1.0)
    epochs: int = tunable(3, 1, 5, unit="passes", ge=1, le=100)


class Alignment(Method):
    """Source cross-entropy + a loss that brings source and target features together.

    Each step takes one labelled source batch and one unlabelled target batch. The task head
    is frozen, as EdgeTA has it, and all else is trained with AdamW, whatever the optimizer of
    a method's paper, so that the methods differ by `alignment_loss` alone and ``source-fine-tune``,
    which has none, is the control of them all.
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
        parameters = train_only(model, model.body_parameters())
        self.optimizer = torch.optim.AdamW(parameters, lr=self.config.learning_rate)

    def adapt(self, domain: DomainView, window: Window) -> None:
        self.model.train()
        epochs = self.config.epochs
        steps = domain.max_passes(epochs) * math.ceil(len(domain) / domain.batch_size)
        source_batches = self.source.infinite()
        for step, batch in enumerate(window.steps(domain.batches(epochs))):
            labelled = next(source_batches)
            logits, source_features = self.model.with_features(labelled.x)
            source_features = self.model.pooled(source_features, labelled.x)
            added = self.adaptation_loss(source_features, batch, step / steps)
            task = self.model.loss(logits, labelled.y)
            loss = task + added
            take_step(self.optimizer, loss)
            window.log(task=task.detach(), alignment=added.detach())

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
